#!/usr/bin/env bash
# mkdocs 1.6.1: --quiet turns --strict off.
#
# Expected: `--quiet` ("Silence warnings") changes what is shown, and `--strict` ("abort the build on any
# warnings") still fails a site with a broken link.
# Seen: the site fails under --strict and passes, silently and with status 0, under --strict --quiet, in either
# order, and so with `strict: true` in mkdocs.yml. --quiet raises the level of the logger to ERROR,
# and strictness is a count of the warnings that pass it. A check by both options of a CI checks nothing.
#
# Last run: 2026-11-29, Python 3.11.7, from nothing:
#   mkdocs 1.6.1 build -f lenient.yml --strict: status 1, 5 lines shown
#   mkdocs 1.6.1 build -f lenient.yml --strict --quiet: status 0, 0 lines shown
#   mkdocs 1.6.1 build -f lenient.yml --quiet --strict: status 0, 0 lines shown
#   mkdocs 1.6.1 build -f strict.yml : status 1, 5 lines shown
#   mkdocs 1.6.1 build -f strict.yml --quiet: status 0, 0 lines shown
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install mkdocs==1.6.1
mkdir -p "$folder/site/docs"
printf '# Home\n\n[A page](missing.md)\n' >"$folder/site/docs/index.md"
printf 'site_name: Site\n' >"$folder/site/lenient.yml"
printf 'site_name: Site\nstrict: true\n' >"$folder/site/strict.yml"

# Checks the exit status of a build: "build STATUS CONFIG OPTIONS..."
build() {
  local expected=$1 config=$2 status=0
  shift 2
  "$folder/venv/bin/mkdocs" build -f "$folder/site/$config" -d "$folder/built" "$@" \
    >"$folder/log" 2>&1 || status=$?
  echo "mkdocs 1.6.1 build -f $config $*: status $status, $(wc -l <"$folder/log") lines shown"
  [[ $status == "$expected" ]]
}
build 1 lenient.yml --strict
build 0 lenient.yml --strict --quiet
build 0 lenient.yml --quiet --strict
build 1 strict.yml
build 0 strict.yml --quiet
