# SPDX-License-Identifier: Apache-2.0
"""``python scripts/monai_deploy_app -i DICOM_FOLDER -o OUTPUT -m EXPORT``, which is also how a package starts it."""

from app import DualSkdClassifierApp

if __name__ == "__main__":
    DualSkdClassifierApp().run()
