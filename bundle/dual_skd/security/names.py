# SPDX-License-Identifier: Apache-2.0
"""Which dotted names a config may use: by their text alone, nothing is imported to find out."""

from __future__ import annotations

import sys
from collections.abc import Collection

# os is taken for environment variables and for paths, and for nothing else
ALLOWED_PACKAGES = ("monai", "torch", "timm", "ignite", "dual_skd")
# what MONAI puts into the namespace of every expression (config_parser.DEFAULT imports)
PREDEFINED = {"monai": "monai", "torch": "torch", "np": "numpy", "numpy": "numpy"}

# Modules of the standard library are attributes of many modules (``torch.os``): a way out of every package.
# These few names of theirs are ordinary methods and functions, too.
_HARMLESS = {"copy", "random", "select", "signal", "statistics", "string", "numbers", "time", "array", "math"}
_REFUSED = {
    # run code, a process, or what a file says
    *("exec", "execfile", "compile_command", "system", "popen", "fork", "forkpty", "run_cmd", "startfile"),
    *("locate", "instantiate", "optional_import", "load_submodules", "import_module", "runcall", "command"),
    *("load_library", "load_inline", "cpp_extension", "collect_env", "collect_env_info", "rpc", "hub", "jit"),
    *("Popen", "check_output", "check_call", "getoutput", "getstatusoutput", "attrgetter", "methodcaller"),
    "allow_network",
    *("load_module", "exec_module", "benchmark", "Timer", "bottleneck", "elastic", "launcher", "sympy", "fire", "yaml"),
    *("run_module", "open_artefact", "worker", "runtimes", "latency", "launch", "fx", "GraphModule"),
    # unpickle without weights_only
    *("load_url", "load_state_dict_from_url", "model_zoo", "load_checkpoint", "resume_checkpoint", "PackageImporter"),
    *("joblib", "dill", "cloudpickle", "read_pickle", "pd", "pandas"),
    # load and run another bundle, or configs that were not looked at
    *("ConfigParser", "ConfigExpression", "ConfigComponent", "ConfigWorkflow", "PythonicWorkflow", "BundleAlgo"),
    *("auto3dseg", "nnunet", "MonaiAlgo", "MonaiAlgoStats", "create_workflow"),
    # write, move and delete files
    *("open", "save", "unlink", "rmdir", "rmtree", "remove_file", "removedirs", "rename", "renames", "chmod"),
    *("symlink_to", "hardlink_to", "write_text", "write_bytes", "extractall", "tofile", "write_bundle"),
    *("write_csv", "write_json", "replace_file"),
}
_REFUSED_PACKAGES = {
    "monai.bundle": "runs other configs",
    "torch.distributed.checkpoint": "unpickles without weights_only",
    "torch.distributed.run": "starts processes",
    "torch.package": "runs code of the file it reads",
}
_STDLIB = frozenset(sys.stdlib_module_names) - _HARMLESS
# argument -> the only value that a config may give it
SAFE_VALUES = {
    "weights_only": True,
    "allow_pickle": False,
    "trust_remote_code": False,
    "trust_repo": False,
    "shell": False,
}
# keys by which MONAI takes a dict for a component to build, so they have to stand in the config itself
COMPONENT_KEYS = ("_target_", "_mode_")
# they name a pickle that is read, without weights_only, by torch or timm
REFUSED_ARGUMENTS = ("pickle_module", "checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay")


def problem_of_attribute(name: str) -> str:
    """Why an attribute of that name isn't taken, wherever it stands; "" for an ordinary one."""
    if name.startswith("_"):
        return f"{name} is a private name"
    if name in _REFUSED or name.startswith(("exec", "spawn", "posix_spawn")):
        return f"{name} can run code, load what was not looked at, or write files"
    if name in _STDLIB:
        return f"{name} is a module of the standard library, reached through another module"
    return ""


def problem_of_dotted(name: str, allowed: Collection[str]) -> str:
    """Why a dotted name such as ``torch.optim.AdamW`` isn't taken; "" for one that is.

    Args:
        name: the whole name, from the package on.
        allowed: packages; one with dots allows what is below it.
    """
    parts = name.split(".")
    if parts[0] == "os" and "os" not in allowed:
        in_path = len(parts) == 3 and parts[1] == "path" and not problem_of_attribute(parts[2])
        if in_path or parts == ["os", "environ", "get"]:
            return ""
        return f"{name}: of os only os.environ.get and functions of os.path are taken"
    if not any(name == package or name.startswith(f"{package}.") for package in allowed):
        return f"{name} is outside the packages that are taken ({', '.join(allowed)})"
    if name in allowed:
        return f"{name}: a whole module is handed on, so what is done with it can't be followed"
    for package, reason in _REFUSED_PACKAGES.items():
        if f"{name}.".startswith(f"{package}."):
            return f"{name}: {package} {reason}"
    if parts[-1] == "eval":  # of an object it is the method of every network
        return f"{name} evaluates a text"
    return next(filter(None, map(problem_of_attribute, parts[1:])), "")


def problem_of_argument(name: str, value: object) -> str:
    """Why an argument isn't taken; "" for an ordinary one. ``value`` is ... where it isn't known."""
    if name in REFUSED_ARGUMENTS:
        return f"{name} has a file unpickled that may run code"
    if name in SAFE_VALUES and value is not SAFE_VALUES[name]:
        return f"{name} has to be {SAFE_VALUES[name]}, literally"
    return ""
