"""What the trainer's benchmark feeds to GPUs, and how it lays models out on them; the speed itself needs a GPU."""

from pathlib import Path

import pytest

from bench import trainer
from bench.common import EXAMPLES
from bench.trainer_run import SHAPES, config
from trainer.data import load_batch, open_data


def test_shards_and_a_plan_for_them(tmp_path: Path) -> None:
    tokens = trainer.write_data(EXAMPLES, tmp_path, 32_000)
    trainer.write_plan(tmp_path, tokens, 512, 4, steps=3)
    data = open_data(tmp_path / "shards")
    assert data.schedule.total_tokens == 3 * 4 * 512
    batch = load_batch(data, 2, 0, 1, micro_batch=2)
    assert [m.inputs.shape for m in batch.micro_batches] == [(2, 512), (2, 512)]


@pytest.mark.parametrize(("name", "parameters"), [("1.7b", 1.66e9), ("7b", 6.74e9), ("8b", 8.03e9)])
@pytest.mark.parametrize("gpus", [1, 2, 8])
def test_shapes_are_what_they_are_called_on_any_number_of_gpus(name: str, parameters: float, gpus: int) -> None:
    shape = SHAPES[name]
    rows, micro, parallel = shape.layout(gpus)
    assert shape.model.parameters() == pytest.approx(parameters, rel=0.01)
    assert rows == parallel.micro_batch
    assert micro >= 1
    assert config(shape, gpus, 2, 0).model.document_mask is False
    assert config(shape, gpus, 2, 0).parallel.micro_batch == 2


def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit):
        trainer.main(["--shapes", "1.7b"])
    assert "no GPU is here" in capsys.readouterr().err
