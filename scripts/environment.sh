# Sourced by the other scripts.

# environment VENV CONSTRAINTS TARGET: make a virtual environment where there is none, and install TARGET (".", or
# ".[test]") with the pinned versions of CONSTRAINTS where setup.cfg or they have changed since.
environment() {
    local venv=$1 constraints=$2 target=$3 candidate stamp stamp_file
    if [ ! -x "$venv/bin/python" ]; then
        for candidate in python3.11 python3.12 python3.13 python3; do
            # A name on the path can be a shim without an interpreter behind it, so each one is tried.
            if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
                "$candidate" -m venv "$venv"
                break
            fi
        done
        if [ ! -x "$venv/bin/python" ]; then
            echo "no Python 3.11, 3.12 or 3.13 found: install one and run this again" >&2
            return 1
        fi
    fi
    stamp=$(cat setup.cfg "$constraints" | sha256sum | cut -d ' ' -f 1)
    stamp_file="$venv/.installed-${target//[^a-z]/}"
    if [ "$(cat "$stamp_file" 2>/dev/null || true)" != "$stamp" ]; then
        echo "installing $target into $venv ..."
        "$venv/bin/python" -m pip install --disable-pip-version-check -c "$constraints" -e "$target"
        echo "$stamp" >"$stamp_file"
    fi
}
