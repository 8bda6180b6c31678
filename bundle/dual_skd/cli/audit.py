# SPDX-License-Identifier: Apache-2.0
"""``dual-skd audit BUNDLE``: what a bundle would run, before it is run."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from dual_skd.cli.shared import add_findings_file, write_lines
from dual_skd.security.audit import Audit, Finding, audit_bundle
from dual_skd.utils.files import write_json
from dual_skd.utils.wording import closing, counted, quoted


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of ``audit``."""
    parser.add_argument("bundle_dir", type=Path, metavar="BUNDLE", help="folder of a MONAI bundle")
    parser.add_argument(
        "--allow", action="append", default=[], metavar="NAME",
        help="a package, module, name or attribute to trust beside those known to be safe; can be repeated",
    )  # fmt: skip
    add_findings_file(parser)
    parser.add_argument(
        "--quiet", action="store_true", help="problems and counts only, not every target and expression"
    )


def main(args: argparse.Namespace) -> int:
    """Looks through the bundle, prints what it would do, and returns 0 when all of it is allowed, else 1."""
    audit = audit_bundle(args.bundle_dir, allow=args.allow)
    if args.json is not None:
        write_json(args.json, audit.as_dict(), indent=2)
    write_lines(*report(audit, quiet=args.quiet), *last_words(args, audit).splitlines())
    return 0 if audit.ok else 1


def last_words(args: argparse.Namespace, audit: Audit) -> str:
    """What was looked through, what was found, and what can be done next."""
    found = (
        f"{counted(len(audit.targets), 'target')}, {counted(len(audit.expressions), 'expression')}, "
        f"{counted(len(audit.problems), 'problem') if audit.problems else 'no problem'}"
    )
    if audit.ok:
        remedy = "nothing unknown was found, which is no proof: run it first where no patients' data are"
    else:
        remedy = "read the places above before you run anything of it; --allow NAME takes what you trust"
    rows = [("found", found), ("next", remedy), ("all findings", args.json or "")]
    answers = audit.ok and (args.bundle_dir / "models" / "model.pt").is_file()
    following = f"dual-skd predict IMAGES --model {quoted(args.bundle_dir)}" if answers else ""
    return closing(f"Audited: {args.bundle_dir}", rows, following)


def report(audit: Audit, *, quiet: bool = False) -> Iterator[str]:
    """What was found, line by line, the problems last."""
    for title, findings in (("Targets", audit.targets), ("Expressions", audit.expressions)):
        yield f"{title}: {len(findings)}"
        yield from () if quiet else map(_line, findings)
    yield "Expressions per file:"
    yield from (f"  {count:4d}  {file}" for file, count in audit.counts.items())
    if audit.manifest:
        yield f"Checksums: {audit.verified} files agree with {audit.manifest}."
    else:
        yield "Checksums: the bundle has no list of SHA-256 sums."
    yield f"Read: SHA-256 {audit.sha256} of the configs, logging files and code."
    yield f"Problems: {len(audit.problems) or 'none'}"
    for one in audit.problems:
        yield from (_line(one), f"      {one.problem}")


def _line(one: Finding) -> str:
    return "  " + "  ".join(part for part in (one.file, one.place, one.text) if part)
