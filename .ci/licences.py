"""Fails if a crate in `cargo metadata` (on stdin) cannot be used under a licence on this list."""

import json
import re
import sys

# Licences that ask for no more than a notice.
ALLOWED = {
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
}


def allowed(expression):
    """Whether an SPDX expression can be met: `OR` is our choice, `AND` binds tighter."""
    # The old way to write OR.
    tokens = re.findall(r"[()]|[^\s()]+", expression.replace("/", " OR "))

    def choice():
        met = both()
        while tokens and tokens[0] == "OR":
            tokens.pop(0)
            met = both() or met
        return met

    def both():
        met = one()
        while tokens and tokens[0] == "AND":
            tokens.pop(0)
            met = one() and met
        return met

    def one():
        licence = tokens.pop(0)
        if licence == "(":
            met = choice()
            tokens.pop(0)
            return met
        if tokens and tokens[0] == "WITH":
            licence = " ".join([licence, tokens.pop(0), tokens.pop(0)])
        return licence in ALLOWED

    return choice()


def main():
    packages = json.load(sys.stdin)["packages"]
    refused = [
        f"{package['name']} {package['version']}: {package['license']}"
        for package in packages
        if not allowed(package["license"] or "none")
    ]
    for line in refused:
        print(line, file=sys.stderr)
    print(f"{len(packages)} crates, {len(refused)} refused")
    sys.exit(bool(refused))


main()
