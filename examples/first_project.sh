#!/usr/bin/env bash
# A first project on your own images, from the command line.
#
#   examples/first_project.sh DATA [PROJECT]
#
# DATA is a folder with
#   labelled/      images that you have annotated, and labelled.json beside it (COCO), or instead of the JSON
#                  a folder labelled-masks/ with one label image (0 = background) per image, of the same name
#   unlabelled/    as many more images as you have
#   test/          optional: annotated images, only to measure on, with test.json (or test-masks/)
#
# PROJECT is a new folder; DATA-project if left out. Training takes 20 minutes; TRAIN="--time 5m" shortens it.
# Your classes are those of CLASSES ("organoid" if not set): CLASSES=organoid,debris. Activate the environment in which
# labelloop is installed first: source .venv/bin/activate
# To try it without data of your own:
#   python examples/make_synthetic_data.py my-data && examples/first_project.sh my-data
set -euo pipefail

data=$(cd "${1:?usage: first_project.sh DATA [PROJECT]}" && pwd)
project=${2:-$data-project}
train=${TRAIN:---time 20m}

annotations() { # NAME: the annotations of the images in DATA/NAME
    if [ -e "$data/$1.json" ]; then echo "$data/$1.json"; else echo "$data/$1-masks"; fi
}

# The classes in their order, such as CLASSES=organoid,debris.
labelloop init "$project" --classes "${CLASSES:-organoid}"
cd "$project"

labelloop add labels "$(annotations labelled)" --images "$data/labelled"
labelloop add images "$data/unlabelled"
if [ -d "$data/test" ]; then
    labelloop add labels "$(annotations test)" --images "$data/test" --split test
fi

labelloop check   # look at what it finds before you train
# shellcheck disable=SC2086  # several words on purpose
labelloop train --labels all $train
labelloop predict --out masks --format coco,label-tiff,overlay
if [ -d "$data/test" ]; then
    labelloop evaluate
fi
labelloop status

echo "Masks and pictures are in $(pwd)/masks"
