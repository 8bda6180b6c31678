# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dual_skd.security.expressions import (
    PREDEFINED,
    Visitor,
    absolute,
    ending,
    evaluated,
    imports_of,
    problems_of_import,
)

IMPORTS = {"os": "os", "torch": "torch", "monai": "monai", "dual_skd": "dual_skd", "F": "torch.nn.functional"}


def problems(text: str, **imports: str) -> list[str]:
    return Visitor(PREDEFINED | IMPORTS | imports).problems_of(f"${text}")


@pytest.mark.parametrize(
    "text",
    [
        "@epochs * len(@train::dataloader)",
        "@lr // 10 if @x::y > 0 and not @flag else -1.5",
        "int(os.environ.get('RANK', 0))",
        "int(os.environ['LOCAL_RANK'])",
        "os.path.join(@output_dir, 'models')",
        "[*@network.parameters(), *(@heads.parameters() if @heads else [])]",
        "dict(name=@small, **@options)",
        "[{'image': image} for image in @images if image]",
        "{a: b for a, (b, c) in zip(@x, @y) for d in b}",
        "lambda output, *rest, scale=2.0, **more: output['loss'].item() * scale",
        "list(map(lambda x: F.softmax(x, dim=1), @logits))",
        "torch.load(@path, map_location='cpu', weights_only=True)",
        "torch.load(@path, 'cpu', **{'weights_only': True})",
        "setattr(torch.backends.cudnn, 'benchmark', True)",
        "json.load(open(@path))",
        "monai.utils.CommonKeys.IMAGE",
        'f"{@output_dir}/model.pt"',
        "@records[1:-1]",
        "@model.eval()",
        "@transform(@image)",
    ],
)
def test_what_configs_need_is_taken(text):
    assert problems(text, json="json") == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("__import__('os').system('id')", "__import__ is not known"),
        ("eval('1')", "eval is not known"),
        ("monai.utils.eval('1')", "monai.utils.eval is not known"),
        ("exec('1')", "exec is not known"),
        ("open('.bashrc', 'w')", "argument mode of builtins.open"),
        ("open(@x, mode=@y)", "argument mode of builtins.open"),
        ("map(open, ['a'], ['w'])", "handed on"),
        ("compile('1', '', 'eval')", "compile is not known"),
        ("getattr(@x, 'system')", "getattr is not known"),
        ("globals()['os']", "globals is not known"),
        ("vars(torch)", "vars is not known"),
        ("setattr(torch, 'load', @x)", "argument object of builtins.setattr"),
        ("setattr(@x, 'benchmark', 1)", "argument object of builtins.setattr"),
        ("().__class__.__mro__[1].__subclasses__()", "attribute __class__"),
        ("[c for c in ().__class__.__bases__]", "attribute __bases__"),
        ("(lambda f: f.__globals__)(@x)", "attribute __globals__"),
        ("'{0.__class__}'.format(@x)", "attribute format"),
        ("(x for x in [1]).gi_frame.f_builtins['exec']('1')", "attribute gi_frame"),
        ("@x.cr_frame", "attribute cr_frame"),
        ("@x.tb_frame.f_back", "attribute f_back"),
        ("os.system('id')", "os.system is not known"),
        ("os.environ", "os.environ is not known"),
        ("os.environ.update(A='1')", "os.environ.update is not known"),
        ("os.environ['A'].system", "attribute system"),
        ("os.path.os.system('id')", "os.path.os.system is not known"),
        ("os", "os is not known"),
        ("torch.os.system('id')", "torch.os.system is not known"),
        ("monai.utils.misc.np.testing.runstring('1', {})", "is not known"),
        ("torch.hub.load('a/b', 'c')", "is not known"),
        ("torch.from_file('C', shared=True, size=4)", "torch.from_file is not known"),
        ("torch.nn.modules.os.system('id')", "is not known"),
        ("torch.Tensor.numpy(@x).tofile('C')", "attribute tofile"),
        ("np.savetxt('C', [1])", "numpy.savetxt is not known"),
        ("np.zeros(3).dump('C')", "attribute dump"),
        ("np.load('x.npy')", "numpy.load is not known"),
        ("@x.replace('victim')", "attribute replace"),
        ("@x.compile(options=1)", "attribute compile"),
        ("@x.update", "attribute update"),
        ("dual_skd.allow_network('evil:Net')", "is not known"),
        ("dual_skd.serving.export.worker.run_module('timeit')", "is not known"),
        ("dual_skd.utils.files.replace_file('C', @x)", "is not known"),
        ("torch.load(@path, weights_only=False)", "weights_only of torch.load"),
        ("torch.load(@path, weights_only=@flag)", "weights_only of torch.load"),
        ("torch.load(@path, **{'weights_' + 'only': False})", "names aren't written"),
        ("torch.load(@path, **{f'weights_only': False})", "names aren't written"),
        ("torch.load(@path, **@more)", "names aren't written"),
        ("torch.load(@path, **dict(zip(['weights_only'], [False])))", "names aren't written"),
        ("torch.load(@path, None, @x)", "more arguments by their place"),
        ("torch.load(*@all)", "more arguments by their place"),
        ("torch.load(@path, pickle_module=@x)", "argument pickle_module"),
        ("map(torch.load, @paths)", "torch.load is handed on"),
        ("[f(@x) for f in [torch.load]]", "torch.load is handed on"),
        ("timm.models.load_state_dict('evil.pt', True, 'cpu', False)", "timm.models.load_state_dict is not known"),
        ("timm.create_model('hf-hub:a/b')", "model_name of timm.create_model"),
        ("timm.create_model('resnet18', True)", "pretrained of timm.create_model"),
        ("torch.distributed.init_process_group('nccl', 'file:///x')", "more arguments by their place"),
        ("dual_skd.data.save_split(@x, '.bashrc')", "path of dual_skd.data.save_split"),
        ("dual_skd.data.save_split(@x, @y + '.json' if @z else @y)", "path of dual_skd.data.save_split"),
        ("monai.bundle.load('x')", "monai.bundle.load is not known"),
        ("torch", "torch is not known"),
        ("[m for m in [torch]]", "torch is not known"),
        ("sklearn.fit()", "sklearn.fit is not known"),
        ("(torch := @x)", "NamedExpr is not part of the grammar"),
        ("[torch for torch in @x]", "bound to something else"),
        ("[__local_refs for __local_refs in @x]", "bound to something else"),
        ("__local_refs", "MONAI's own name"),
        ("__local_refs[@x]", "MONAI's own name"),
        ("(yield 1)", "Yield"),
        ("await @x", "Await"),
        ("1; 2", "not an expression"),
        ("(" * 500 + "1" + ")" * 500, "not an expression|deeper"),
        ("-" * 9000 + "1", "deeper|not an expression"),
        ("1" * 20_000, "more than anyone can read"),
        ("'a\x00b'", "not an expression"),
    ],
)
def test_what_reaches_further_is_refused(text, words):
    found = problems(text, timm="timm")
    assert any(re.search(words, problem) for problem in found), found


def test_a_name_of_a_lambda_is_known_in_it_alone():
    assert not problems("(lambda x: x)(1)")
    assert problems("(lambda x: x)(x)") == problems("x") != []
    assert problems("[y for y in y]") != []  # the first iterable is outside


def test_an_alias_is_followed_to_what_it_stands_for():
    assert problems("t.system('id')", t="os")
    assert problems("len('a')", len="os.system")
    assert not problems("t.join(@a, 'b')", t="os.path")
    assert not problems("AdamW(@p)", AdamW="torch.optim.AdamW")


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("$import os", True),
        ("$import torch.nn.functional as F", True),
        ("$from monai.transforms import Compose", True),
        ("$from os import path", True),
        ("$from os import system", False),
        ("$from torch import os", False),
        ("$import subprocess", False),
        ("$import torch, sys", False),
        ("$import monai.bundle", False),
        ("$from . import evil", False),
        ("$from torch import *", False),
        ("$import os; os.system('id')", False),
    ],
)
def test_imports_are_held_to_the_known_names(text, good):
    imports = imports_of(text)
    assert imports is not None and (problems_of_import(imports, ()) == []) == good
    assert imports_of("$important + 1") is None


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("$@folder + '/a.csv'", ["/a.csv"]),
        ("$None if @x else @folder + '/a.csv'", ["/a.csv"]),
        ("$'a' if @x else 'b'", ["a", "b"]),
        ("$@folder", None),
        ("$(@x, '/a.csv')[0]", None),
        ("$'a' if @x else @y", None),
        ("$((", None),
    ],
)
def test_the_end_of_a_text_is_known_where_a_literal_is_added_last(text, ends):
    assert ending(text) == ends


words = st.text("ab0:#@%$' .+([", max_size=20)


@given(st.lists(st.text("abc_0'\"", min_size=1, max_size=4), min_size=1, max_size=4), words)
def test_the_text_that_is_parsed_is_the_one_that_monai_evaluates(path, text):
    from monai.bundle.config_parser import ConfigParser
    from monai.bundle.reference_resolver import ReferenceResolver

    text = f"${text}"
    try:
        theirs = ConfigParser.resolve_relative_ids("::".join(path), text)
    except ValueError:  # above the root: MONAI refuses
        return
    assert absolute(text, tuple(path)) == theirs
    every_id = dict.fromkeys(ReferenceResolver.match_refs_pattern(theirs), 1)
    assert evaluated(theirs) == ReferenceResolver.update_refs_pattern(theirs, every_id)[1:].strip()
