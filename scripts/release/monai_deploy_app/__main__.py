# SPDX-License-Identifier: Apache-2.0
"""``python scripts/release/monai_deploy_app -i DICOM_FOLDER -o OUTPUT -m EXPORT``; a package starts it so, too."""

from app import DualSkdClassifierApp

if __name__ == "__main__":
    DualSkdClassifierApp().run()
