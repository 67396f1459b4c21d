"""The callback in the real Trainer of transformers, with a network of the tests and with one of the library."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

pytest.importorskip("transformers", reason="the extra amsc[transformers] is not installed")

from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

from amsc.errors import RunFolderError, SettingsError, TrainingError
from amsc.measurement import measure
from amsc.surgery import load, plan_of, save
from amsc.trainers import LoopSettings
from amsc.trainers.transformers import AmscCallback
from trainers.loops import EXAMPLE, SETTINGS, TARGET, Batches, Net, with_trainer

BATCHES = Batches.drawn(40)
X = {"x": EXAMPLE}
TOKENS = torch.randint(0, 40, (256, 12), generator=torch.Generator().manual_seed(0))
ROWS = [{"input_ids": row, "labels": (row[0] < 20).long()} for row in TOKENS]
WORDS = {"input_ids": TOKENS[:2], "attention_mask": torch.ones(2, 12, dtype=torch.long)}


def is_half(net: nn.Module) -> bool:
    return bool(0.48 < measure(net, X).macs / measure(Net(), X).macs <= 0.5)


def bert() -> Any:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    return BertForSequenceClassification(BertConfig(vocab_size=40, max_position_embeddings=16, **sizes))


def arguments(folder: Path, **options: Any) -> TrainingArguments:
    chosen: dict[str, Any] = {"report_to": "none", "save_strategy": "no", "use_cpu": True, "max_steps": 60, **options}
    return TrainingArguments(
        str(folder), learning_rate=3e-3, per_device_train_batch_size=16, disable_tqdm=True, logging_steps=10, **chosen
    )


@pytest.mark.parametrize("options", [{}, {"bf16": True, "gradient_accumulation_steps": 2}], ids=["float32", "bfloat16"])
def test_a_transformer_becomes_small_while_the_trainer_trains_it(tmp_path: Path, options: dict[str, Any]) -> None:
    """With its own optimiser (AdamW), warm-up, clipping and dropout; a cut is proven in float32 all the same."""
    net = bert()
    own = AmscCallback("macs=70%", WORDS, settings=LoopSettings(pieces=3, round_to=1))
    trainer = Trainer(net, arguments(tmp_path, warmup_steps=5, **options), train_dataset=ROWS, callbacks=[own])
    trainer.train()
    assert trainer.model is net
    assert own.compression is not None
    assert own.compression.steps == 60
    assert measure(net, WORDS).macs <= 0.7 * measure(bert(), WORDS).macs
    save(net, tmp_path / "small")
    net.eval()
    vars(net).pop("forward", None)  # of Accelerate: it computes in bfloat16
    with torch.no_grad():
        found = net(input_ids=TOKENS).logits.argmax(1)
    assert float((found == torch.stack([row["labels"] for row in ROWS])).float().mean()) > 0.9, "a coin has 0.5"
    torch.testing.assert_close(load(tmp_path / "small", bert)(**WORDS).logits, net(**WORDS).logits)


def test_it_goes_on_from_a_checkpoint_after_a_cut(tmp_path: Path) -> None:
    saving = {"save_strategy": "steps", "save_steps": 20}
    first = AmscCallback(TARGET, X, settings=SETTINGS)
    with_trainer(Net(), BATCHES, tmp_path, first, **saving)
    checkpoint = tmp_path / "checkpoint-20"
    own, net = AmscCallback(TARGET, X, settings=SETTINGS), Net()
    own.resume(net, checkpoint)
    assert plan_of(net) is not None
    with_trainer(net, BATCHES, tmp_path, own, resume_from_checkpoint=str(checkpoint))
    assert own.compression is not None
    assert own.compression.steps == 40
    assert own.compression.is_done
    assert is_half(net)


def test_a_checkpoint_of_which_it_does_not_know_is_refused(tmp_path: Path) -> None:
    first = AmscCallback(TARGET, X, settings=SETTINGS)
    with_trainer(Net(), BATCHES, tmp_path, first, save_strategy="steps", save_steps=4)
    with pytest.raises(TrainingError, match=r"goes on from step 4 .* callback.resume\(model, checkpoint\)"):
        with_trainer(
            Net(), BATCHES, tmp_path, AmscCallback(TARGET, X), resume_from_checkpoint=str(tmp_path / "checkpoint-4")
        )
    with pytest.raises(RunFolderError, match=r"holds no amsc\.json"):
        AmscCallback(TARGET, X).resume(Net(), tmp_path)


def test_a_checkpoint_after_the_last_cut_is_gone_on_from(tmp_path: Path) -> None:
    """Steps are counted, also when there is nothing left to do."""
    saving = {"save_strategy": "steps", "save_steps": 36}
    with_trainer(Net(), BATCHES, tmp_path, AmscCallback(TARGET, X, settings=SETTINGS), **saving)
    own, net = AmscCallback(TARGET, X, settings=SETTINGS), Net()
    own.resume(net, tmp_path / "checkpoint-36")
    assert is_half(net)
    with_trainer(net, BATCHES, tmp_path, own, resume_from_checkpoint=str(tmp_path / "checkpoint-36"))
    assert own.compression is not None
    assert own.compression.cuts == []
    assert is_half(net)


def test_a_second_training_goes_on_with_the_small_network(tmp_path: Path) -> None:
    own, net = AmscCallback(TARGET, X, settings=SETTINGS), Net()
    with_trainer(net, BATCHES, tmp_path, own)
    small = measure(net, X).macs
    with_trainer(net, BATCHES, tmp_path, own)
    assert measure(net, X).macs == small, "the target is a share of the dense network"


REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"fsdp": "full_shard"}, TrainingError, "one process on one device.*fsdp='full_shard'"),
    ({"deepspeed": "zero.json"}, TrainingError, "deepspeed='zero.json'"),
    ({"world_size": 2}, TrainingError, "world_size=2"),
    ({"n_gpu": 4}, TrainingError, "n_gpu=4"),
    ({"load_best_model_at_end": True}, SettingsError, "before a cut into the small one"),
]


@pytest.mark.parametrize(("said", "kind", "words"), REFUSED, ids=[next(iter(each[0])) for each in REFUSED])
def test_what_cannot_be_compressed_is_refused(said: dict[str, Any], kind: type[Exception], words: str) -> None:
    class Arguments:
        world_size, n_gpu, deepspeed, fsdp, load_best_model_at_end = 1, 0, None, [], False

    args, own = Arguments(), AmscCallback(TARGET, X)
    vars(args).update(said)
    with pytest.raises(kind, match=words):
        own.on_train_begin(args, None, None)


def test_a_target_out_of_reach_is_refused_before_training(tmp_path: Path) -> None:
    from amsc.errors import TargetError

    with pytest.raises(TargetError, match="lowest reachable target"):
        with_trainer(Net(), BATCHES, tmp_path, AmscCallback("macs=0.1%", X))


@pytest.mark.parametrize("version", ["4.30.0", "6.0.0", ""])
def test_a_version_that_is_not_known_is_refused(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["transformers"], "__version__", version)
    with pytest.raises(SettingsError, match=f"knows transformers from 4.* and {version or 'none'} is installed"):
        AmscCallback(TARGET, X)
