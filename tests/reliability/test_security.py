"""No pickle, no remote code, no shell, and nothing outside its folder; checked in the syntax trees of all sources."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.milebench.annotation import check_annotation
from lookm.errors import LookmError
from lookm.locations import CONFIGS

ROOT = CONFIGS.parent
PACKAGES = ("lookm", "baselines", "benchmarks", "scripts", "hydra_plugins", "configs")
UNPICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
RUNNERS = {"eval", "exec", "compile", "__import__"}
SHELLS = {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}


def sources() -> list[Path]:
    return [ROOT / "run.py", *(file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py")))]


def faults(tree: ast.Module) -> Iterator[str]:
    """What a source may not do, each with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            named = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if name in RUNNERS:
                yield f"{node.lineno}: {name}() runs code that is data"
            if name in SHELLS or named.get("shell", "False") != "False":
                yield f"{node.lineno}: {name} starts a shell"
            if named.get("trust_remote_code", "False") != "False":
                yield f"{node.lineno}: {name} runs a repository's code"
            if name == "torch.load" and named.get("weights_only") != "True":
                yield f"{node.lineno}: torch.load without weights_only=True unpickles anything"
            module, _, function = name.rpartition(".")
            if module in UNPICKLERS and function in ("load", "loads", "Unpickler", "open"):
                yield f"{node.lineno}: {name} unpickles anything"
            if named.get("allow_pickle", "False") != "False":
                yield f"{node.lineno}: {name} with allow_pickle unpickles anything"
            if name.endswith("yaml.load"):
                yield f"{node.lineno}: {name} makes objects of any class"
        if isinstance(node, ast.ImportFrom) and node.module in UNPICKLERS:
            for alias in node.names:
                if alias.name in ("load", "loads", "Unpickler"):
                    yield f"{node.lineno}: from {node.module} import {alias.name}"


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("eval('1')", "eval() runs code"),
        ("exec(text)", "exec() runs code"),
        ("os.system('ls')", "starts a shell"),
        ("subprocess.run('ls', shell=True)", "starts a shell"),
        ("subprocess.run(a, shell=flag)", "starts a shell"),
        ("AutoModel.from_pretrained(x, trust_remote_code=True)", "runs a repository's code"),
        ("AutoModel.from_pretrained(x, trust_remote_code=trust)", "runs a repository's code"),
        ("torch.load(path)", "without weights_only"),
        ("torch.load(path, weights_only=False)", "without weights_only"),
        ("pickle.loads(data)", "unpickles anything"),
        ("from pickle import loads", "from pickle import loads"),
        ("np.load(path, allow_pickle=True)", "unpickles anything"),
        ("yaml.load(text)", "objects of any class"),
    ],
)
def test_the_check_finds_what_it_is_for(code: str, told: str) -> None:
    (fault,) = faults(ast.parse(code))
    assert told in fault


@pytest.mark.parametrize(
    "code",
    [
        "torch.load(p, weights_only=True)",
        "subprocess.run(['git'])",
        "model.eval()",
        "re.compile('x')",
        "yaml.safe_load(t)",
    ],
)
def test_the_check_leaves_harmless_code_alone(code: str) -> None:
    assert list(faults(ast.parse(code))) == []


def test_no_source_unpickles_runs_data_or_starts_a_shell() -> None:
    files = sources()
    assert len(files) > 80
    found = [
        f"{file.relative_to(ROOT)}:{fault}"
        for file in files
        for fault in faults(ast.parse(file.read_text(encoding="utf-8")))
    ]
    assert found == []


@pytest.mark.parametrize(
    "path",
    [
        "../x.png",
        "/etc/passwd",
        "a/../../x.png",
        "C:\\x.png",
        "\\\\host\\share\\x.png",
        "..\\x.png",
        "a\0.png",
        "",
        " ",
    ],
)
@pytest.mark.parametrize("field", ["images_path", "combined_1_images"])
def test_no_annotation_reads_outside_its_folder(path: str, field: str) -> None:
    instance = {"context": "", "images_path": ["a.png"], "combined_1_images": ["b.png"], field: [path]}
    sample = {"sample_id": 1, "task_instruction_id": 0, "response": "x", "task_instance": instance}
    meta = {"task_instruction": ["Look."], "question_type": "open-ended"}
    with pytest.raises(LookmError, match=f"{field} has .* which leaves the image folder"):
        check_annotation({"meta_data": meta, "data": [sample]}, combine_image=1)
