"""Two folders of images that are no pairs, for CycleGAN."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Unpack

from gan_cli.data.dataset import TranslationDataset
from gan_cli.data.download import ensure, fetch, unpack
from gan_cli.data.find import find_images
from gan_cli.data.paired import find_two
from gan_cli.data.translation import FileStream, TranslationOptions, check_load_size, choose_held_out, translation_files
from gan_cli.system.errors import NotFoundError

SERVERS = ("https://efrosgans.eecs.berkeley.edu/cyclegan/datasets", "http://efrosgans.eecs.berkeley.edu/cyclegan/datasets")
SHA256 = {  # SHA-256 of each zip file, from tensorflow_datasets/url_checksums/cycle_gan.txt
    "apple2orange": "845a191e9af8926408ea597001cd03a452e3300a1f44a79fe329b3d59f6e3eb8",
    "cezanne2photo": "3a6c10ca21f9485862f1cbd707744b9dc258954a04631271d23a3605eeb63cff",
    "facades": "9a31ebf3a31b9b5cd195dd5bf62e9308e00cb94604d1019e3889ac84248695c0",
    "horse2zebra": "a74d9d392eecca9966b51287a76ca126af473d9de4f3e8fc0e9cda08fa1730a1",
    "iphone2dslr_flower": "8fcb5e374d631b107e1d961b8c4cd0a186aa2a4ff3e279923f4c426128de7113",
    "maps": "639534f69dbf9f36bef8d6292a7698006361221f83f0285d7c9ca78afe6e8a9e",
    "monet2photo": "88f91b00fc228f97c9411fbf1880ec1d119c98f1722e4cfcfaa2fb35fac05b04",
    "summer2winter_yosemite": "167fe1726807a9d22bd106b4a6c0bd7953b688af924ac1bf967439c4961e49f9",
    "ukiyoe2photo": "02a2a2fb5ecf425ca1bf86aca7304377da64a2a1d3b86df54eb65e4068bf3b08",
    "vangogh2photo": "362c3473e70be0944bda08d49d660eafdc2854df55d697835b8186d1d79caaff",
}
CycleGANName = Literal[
    "horse2zebra",
    "apple2orange",
    "summer2winter_yosemite",
    "monet2photo",
    "cezanne2photo",
    "ukiyoe2photo",
    "vangogh2photo",
    "maps",
    "cityscapes",
    "facades",
    "iphone2dslr_flower",
]


def unpaired(
    *,
    root: str,
    split: str = "train",
    held_out: str | None = "auto",
    **options: Unpack[TranslationOptions],
) -> TranslationDataset:
    """The images of two domains: ``SPLITA/`` and ``SPLITB/`` below ``root``, or ``A/SPLIT/`` and ``B/SPLIT/``.

    Args:
        root: the folder.
        split: the part to read.
        held_out: the part that training does not see, None, or ``auto`` for the first of test and val that is there.
        options: see :class:`TranslationOptions`.

    Raises:
        NotFoundError: the folders are not there.
        DataError: no images, or files that cannot be read.
        ConfigError: ``load_size`` is smaller than ``image_size``.
    """
    home = Path(root).expanduser()

    def find(split: str) -> list[FileStream]:
        folders = find_two(home, split)
        if folders is None:
            todo = f"It takes two folders of images, {split}A/ and {split}B/ or A/{split}/ and B/{split}/"
            raise NotFoundError(f"no two domains for the split {split!r}", str(home.absolute()), todo)
        return [
            FileStream((key,), home, home, [(f"{folder}/{name}",) for name in find_images(home / folder)])
            for key, folder in zip("ab", folders, strict=True)
        ]

    def has(split: str) -> bool:
        return find_two(home, split) is not None

    held_out = choose_held_out(has, split=split, held_out=held_out, auto=["test", "val"], where=home)
    return translation_files(find, split=split, held_out=held_out, hint="Choose folders with images", **options)


def cyclegan_set(
    *,
    name: CycleGANName,
    root: str = "data",
    split: Literal["train", "test"] = "train",
    download: bool = True,
    **options: Unpack[TranslationOptions],
) -> TranslationDataset:
    """A data set of Zhu et al., "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks", 2017.

    Args:
        name: the name of the set. cityscapes cannot be downloaded: its archive holds no images any more, for their licence.
        root: holds the folder ``name`` with trainA, trainB, testA and testB. Never written to if they are there.
        split: the part to read. Of train, test is held out; of test, nothing.
        download: whether missing files may be downloaded.
        options: see :class:`TranslationOptions`.

    Raises:
        NotFoundError: the files are missing.
        DataError: files cannot be read.
        ConfigError: ``load_size`` is smaller than ``image_size``.
    """
    folder = Path(root).expanduser() / name

    def fetch_into(staging: Path) -> list[Path]:
        if name not in SHA256:
            raise ValueError(f"the archive of {name} holds no images, for their licence")
        archive = fetch(f"{name}.zip", [f"{server}/{name}.zip" for server in SERVERS], SHA256[name], staging)
        return [unpack(archive, staging) / name / part for part in ("trainA", "trainB", "testA", "testB")]

    check_load_size(**options)  # refuses wrong sizes before a download
    ensure(
        name,
        lambda: [part for part in (f"{split}A", f"{split}B") if not any((folder / part).glob("*"))],
        fetch_into,
        folder=folder,
        download=download,
        instead="digits_unpaired",
    )
    return unpaired(root=str(folder), split=split, **options)
