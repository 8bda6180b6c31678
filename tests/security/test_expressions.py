# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re

import pytest

from dual_skd.security.expressions import imports_of, problems_of_expression, problems_of_import
from dual_skd.security.names import ALLOWED_PACKAGES

IMPORTS = {"os": "os", "torch": "torch", "monai": "monai", "dual_skd": "dual_skd", "F": "torch.nn.functional"}


def problems(text: str, **imports: str) -> list[str]:
    return problems_of_expression(f"${text}", imports=IMPORTS | imports, allowed=ALLOWED_PACKAGES)


@pytest.mark.parametrize(
    "text",
    [
        "@epochs * len(@train#dataloader)",
        "@lr // 10 if @x::y > 0 and not @flag else -1.5",
        "int(os.environ.get('RANK', 0))",
        "os.path.join(@output_dir, 'models')",
        "[*@network.parameters(), *(@heads.parameters() if @heads else [])]",
        "dict(name=@small, **@options)",
        "[{'image': image} for image in @images if image]",
        "{a: b for a, (b, c) in zip(@x, @y) for d in b}",
        "lambda output, *rest, scale=2.0, **more: output['loss'].item() * scale",
        "list(map(lambda x: F.softmax(x, dim=1), @logits))",
        "torch.load(@path, map_location='cpu', weights_only=True)",
        "getattr(@datalist, 'multi_label')",
        "f'{@output_dir}/model.pt'",
        "@records[1:-1]",
        "@model.eval()",
    ],
)
def test_what_configs_need_is_taken(text):
    assert problems(text) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("__import__('os').system('id')", "__import__ is not known"),
        ("eval('1')", "name eval"),
        ("monai.utils.eval('1')", "evaluates a text"),
        ("exec('1')", "name exec"),
        ("open('/etc/passwd').read()", "name open"),
        ("compile('1', '', 'eval')", "name compile"),
        ("globals()['os']", "name globals"),
        ("vars(torch)", "name vars"),
        ("().__class__.__mro__[1].__subclasses__()", "__class__ is a private name"),
        ("[c for c in ().__class__.__bases__]", "private name"),
        ("(lambda f: f.__globals__)(@x)", "__globals__"),
        ("'{0.__class__}'.format(@x)", "private name"),
        ("os.system('id')", "only os.environ.get"),
        ("os.environ", "only os.environ.get"),
        ("os.environ.update(A='1')", "only os.environ.get"),
        ("dual_skd.allow_network('evil:Net')", "allow_network can run code"),
        ("dual_skd.networks.allowed.allow_network('evil:Net')", "allow_network can run code"),
        ("os.path.os.system('id')", "only os.environ.get"),
        ("os", "only os.environ.get"),
        ("torch.os.system('id')", "os is a module of the standard library"),
        ("monai.utils.misc.subprocess.run(['id'])", "subprocess is a module of the standard library"),
        ("dual_skd.errors.sys.modules", "sys is a module"),
        ("monai.utils.run_cmd(['id'])", "run_cmd can run code"),
        ("torch.hub.load('a/b', 'c')", "hub can run code"),
        ("torch.utils.cpp_extension.load_inline('a', 'b')", "cpp_extension can run code"),
        ("dual_skd.serving.export.worker.run_module('timeit', ['1'], @x, seconds=9)", "worker can run code"),
        ("dual_skd.serving.export.runtimes.open_artefact('eager', @x, threads=1)", "runtimes can run code"),
        ("@x.run_module('timeit')", "run_module can run code"),
        ("@x.open_artefact('eager')", "open_artefact can run code"),
        ("dual_skd.serving.export.latency.measure(@x)", "latency can run code"),
        ("dict([('_target_', 'os.system'), ('command', 'id')])", "_target_ inside an expression"),
        ("dict(_target_='os.system', command='id')", "_target_ inside an expression"),
        ("{'_mode_': 'debug'}", "_mode_ inside an expression"),
        ("torch.distributed.launch.main(['script'])", "launch can run code"),
        ("torch.fx.Graph().placeholder('x=open(1)')", "fx can run code"),
        ("@x.GraphModule(@y, @z)", "GraphModule can run code"),
        ("torch.ops.load_library('evil.so')", "load_library can run code"),
        ("torch.load(@path, weights_only=False)", "weights_only has to be True"),
        ("torch.load(@path, weights_only=@flag)", "weights_only has to be True"),
        ("torch.load(@path, **{'weights_only': False})", "given by a text"),
        ("torch.load(@path, pickle_module=@x)", "pickle_module"),
        ("monai.bundle.load('x')", "monai.bundle runs other configs"),
        ("torch", "whole module"),
        ("[m for m in [torch]]", "whole module"),
        ("getattr(torch, @name)", "not literal"),
        ("getattr(torch, 'o' + 's')", "not literal"),
        ("getattr(torch, 'os')", "module of the standard library"),
        ("getattr(os, 'system')", "only os.environ.get"),
        ("map(getattr, [torch], ['os'])", "name getattr"),
        ("numpy.load('x.npy')", "numpy.load is outside"),
        ("np.load('x.npy', allow_pickle=True)", "allow_pickle has to be False"),
        ("sklearn.fit()", "sklearn is not known"),
        ("@x.system('id')", "system can run code"),
        ("@x.open('w')", "open can run code"),
        ("(torch := @x)", "NamedExpr is not part of the grammar"),
        ("[torch for torch in @x]", "bound to something else"),
        ("(yield 1)", "Yield"),
        ("1; 2", "not an expression"),
        ("(" * 500 + "1" + ")" * 500, "not an expression|deeper"),
        ("-" * 9000 + "1", "deeper|not an expression"),
        ("1" * 20_000, "more than anyone can read"),
        ("'a\x00b'", "not an expression"),
    ],
)
def test_what_reaches_further_is_refused(text, words):
    found = problems(text)
    assert any(re.search(words, problem) for problem in found), found


def test_a_name_of_a_lambda_is_known_in_it_alone():
    assert not problems("(lambda x: x)(1)")
    assert problems("(lambda x: x)(x)") == problems("x") != []
    assert problems("[y for y in y]") != []  # the first iterable is outside


def test_an_alias_is_followed_to_what_it_stands_for():
    assert problems("t.system('id')", t="os")
    assert not problems("t.join(@a, 'b')", t="os.path")
    assert not problems("AdamW(@p)", AdamW="torch.optim.AdamW")


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("$import os", True),
        ("$import torch.nn.functional as F", True),
        ("$from monai.transforms import Compose", True),
        ("$from os import path", False),
        ("$from os import system", False),
        ("$from torch import os", False),
        ("$import subprocess", False),
        ("$import torch, sys", False),
        ("$import monai.bundle", False),
        ("$from . import evil", False),
        ("$from torch import *", True),  # MONAI binds the name "*", which no expression can use
        ("$import os; os.system('id')", False),
    ],
)
def test_imports_are_held_to_the_same_packages(text, good):
    assert imports_of(text)[1]
    assert (problems_of_import(text, ALLOWED_PACKAGES) == []) == good
    assert imports_of("$important + 1") == ({}, False)
