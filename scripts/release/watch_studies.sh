#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Classifies every study that arrives in BASE/incoming, and stores its Structured Report in a PACS.
#
#   sh scripts/release/watch_studies.sh BASE RUN HOST PORT AE_TITLE_OF_THE_PACS
#
# A study is a folder. It is taken when nothing has been written into it for QUIET seconds (30), and ends in BASE/done or
# BASE/failed, with predictions.csv, the report and log.txt beside its images. Needs Linux and storescu of DCMTK.
set -u
umask 077
[ $# -eq 5 ] || { sed -n '3,8s/^# \{0,1\}//p' "$0"; exit 2; }
base=$1 run=$2 host=$3 port=$4 title=$5
configs=$(dirname "$0")/../../bundle/configs
mkdir -p "$base/incoming" "$base/working" "$base/done" "$base/failed"
find "$base/working" -mindepth 1 -maxdepth 1 -exec mv -t "$base/incoming" {} + # of a loop that was stopped

classify() {
    touch "$1/started" && sleep 0.1 && # times of files have ticks: a report has to be newer
        python -m monai.bundle run inference --config_file "$configs/inference.json" \
            --output_dir "$run" --dataset_dir "$1" --dicom_sr true &&
        cp "$run/predictions.csv" "$1" &&
        find "$run/sr" -name '*.dcm' -newer "$1/started" -exec mv -t "$1" {} + &&
        for report in "$1"/????????????????.dcm; do # 16 letters of a hash
            [ -f "$report" ] && storescu -aet DUALSKD -aec "$title" "$host" "$port" "$report" || return 1
        done
}

while sleep "${PAUSE:-5}"; do
    for study in "$base/incoming"/*/; do
        [ -d "$study" ] && [ -z "$(find "$study" -newermt "${QUIET:-30} seconds ago")" ] || continue
        work=$base/working/$(basename "$study").$(date +%Y%m%dT%H%M%S)
        mv "$study" "$work" # images that come later are a study of their own
        if classify "$work" >"$work/log.txt" 2>&1; then to=done; else to=failed; fi
        mv "$work" "$base/$to" && echo "$(date '+%F %T') $to: $(basename "$work")"
    done
done
