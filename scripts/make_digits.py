"""Make gan_cli/data/digits.npz from the copy of the UCI digits in scikit-learn.

    python3 -m venv /tmp/sk && /tmp/sk/bin/pip install scikit-learn && /tmp/sk/bin/python scripts/make_digits.py

The values and their order are unchanged: 1,797 images of 8x8 pixels in 0..16, and their labels, both as uint8. The file is
reproducible byte by byte for one version of zlib, because its entries have a fixed time stamp.

Source: Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, UCI Machine Learning Repository, 1998,
CC BY 4.0, https://doi.org/10.24432/C50P49.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

TARGET = Path(__file__).resolve().parents[1] / "gan_cli" / "data" / "digits.npz"
CLASS_COUNTS = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def main() -> None:
    """Check the source and write the file."""
    source = load_digits()
    images, labels = source.images.astype(np.uint8), source.target.astype(np.uint8)
    assert images.shape == (1797, 8, 8) and (images == source.images).all()
    assert images.min() == 0 and images.max() == 16
    assert np.bincount(labels).tolist() == CLASS_COUNTS

    with zipfile.ZipFile(TARGET, "w") as file:
        for name, array in (("images", images), ("labels", labels)):
            content = io.BytesIO()
            np.save(content, array, allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            file.writestr(entry, content.getvalue(), compress_type=zipfile.ZIP_DEFLATED, compresslevel=9)
    print(f"{TARGET}: {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main()
