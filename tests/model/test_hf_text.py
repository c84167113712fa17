"""The BERT text encoder and its reader, on a small random BERT and an own vocabulary."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from torch import nn

from t3d.errors import CheckpointError, RecipeError
from t3d.model.encoders.hf_text import (
    HFText,
    HFTextNet,
    ReportReader,
    cut,
    load_tokenizer,
    train_wordpiece,
)
from t3d.model.tensors import TextBlock

FINDINGS = (
    "There is a small right pleural effusion.",
    "The heart is enlarged.",
    "No pulmonary nodule is seen.",
)
IMPRESSION = ("Right pleural effusion.", "Cardiomegaly.")
SHAPE = {
    "vocab_size": 120,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
}
SMALL = HFText(config=SHAPE, max_tokens=64, frozen_layers=1)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_wordpiece([*FINDINGS, *IMPRESSION] * 3, 120)


def build(config: HFText = SMALL) -> HFTextNet:
    torch.manual_seed(0)
    return config.build().eval()


def read(tokenizer: Tokenizer, *texts: tuple[tuple[str, ...], tuple[str, ...]]) -> TextBlock:
    return ReportReader(tokenizer, max_tokens=64)(texts)


# The vocabulary and the reader


@pytest.mark.parametrize("size", [70, 80, 120])
def test_training_a_vocabulary_again_gives_the_same_one(size: int) -> None:
    sentences = [*FINDINGS, *IMPRESSION] * 3
    first = train_wordpiece(sentences, size)
    assert first.get_vocab_size() <= size
    for _ in range(5):
        assert train_wordpiece(sentences, size).get_vocab() == first.get_vocab()


def test_special_tokens_have_berts_numbers_and_no_piece_of_a_word_is_special(
    tokenizer: Tokenizer,
) -> None:
    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    assert [tokenizer.token_to_id(token) for token in special] == [0, 1, 2, 3, 4]
    words = tokenizer.encode("Pleural ##a effusion", add_special_tokens=False).tokens
    assert "##a" not in words
    assert "pleural" in words
    assert tokenizer.decode(tokenizer.encode("Right effusion").ids) == "right effusion"


def test_a_text_is_cls_findings_impression_sep(tokenizer: Tokenizer) -> None:
    block = read(tokenizer, (FINDINGS[:2], IMPRESSION[:1]))
    whole = tokenizer.encode(" ".join((*FINDINGS[:2], *IMPRESSION[:1])), add_special_tokens=False)
    assert block.ids[0].tolist() == [2, *whole.ids, 3]
    assert block.mask.all()


def test_segments_count_the_sentences_and_leave_out_added_tokens(tokenizer: Tokenizer) -> None:
    block = read(tokenizer, (FINDINGS[:2], IMPRESSION[:1]), ((), ()))
    segment = block.segment[0].tolist()
    assert segment[0] == segment[-1] == -1
    assert segment[1:-1] == sorted(segment[1:-1])
    assert set(segment[1:-1]) == {0, 1, 2}
    words = tokenizer.encode(IMPRESSION[0], add_special_tokens=False).ids
    assert block.ids[0][block.segment[0] == 2].tolist() == words
    assert block.segment[1].tolist() == [-1] * len(segment)


def test_an_empty_text_is_the_two_added_tokens(tokenizer: Tokenizer) -> None:
    block = read(tokenizer, (FINDINGS, ()), ((), ()))
    assert block.ids[1, :2].tolist() == [2, 3]
    assert block.mask[1].sum() == 2
    assert (block.ids[1, 2:] == 0).all()
    assert block.study.tolist() == [0, 1]


def test_no_text_at_all_is_a_block_without_rows(tokenizer: Tokenizer) -> None:
    assert read(tokenizer).ids.shape == (0, 2)


def test_a_long_report_loses_the_end_of_its_findings_and_keeps_the_impression(
    tokenizer: Tokenizer,
) -> None:
    lengths = [len(tokenizer.encode(s, add_special_tokens=False).ids) for s in FINDINGS]
    last = len(tokenizer.encode(IMPRESSION[0], add_special_tokens=False).ids)
    budget = lengths[0] + last + 2 + 1  # one token more than the first sentence needs
    block = ReportReader(tokenizer, max_tokens=budget)([(FINDINGS, IMPRESSION[:1])])
    assert block.ids.shape[1] == budget - 1
    assert sorted(set(block.segment[0].tolist())) == [-1, 0, 3]


@pytest.mark.parametrize(
    ("findings", "impression", "budget", "kept"),
    [
        ([4, 4, 4], [3], 12, [4, 4, 0, 3]),
        ([4, 4], [3], 100, [4, 4, 3]),
        ([4], [9, 2], 8, [0, 8, 0]),  # an impression too long is cut, findings give way
        ([4], [6, 3], 8, [0, 6, 0]),
        ([9, 1], [], 8, [8, 0]),
        ([9], [3], 8, [0, 3]),
        ([], [], 8, []),
    ],
)
def test_cutting_follows_the_worked_cases(
    findings: list[int], impression: list[int], budget: int, kept: list[int]
) -> None:
    assert cut(findings, impression, budget) == kept


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(1, 12), max_size=6),
    st.lists(st.integers(1, 12), max_size=4),
    st.integers(1, 30),
)
def test_cutting_fits_the_budget_and_never_empties_a_report(
    findings: list[int], impression: list[int], budget: int
) -> None:
    kept = cut(findings, impression, budget)
    lengths = findings + impression
    assert sum(kept) <= budget
    assert all(k in (0, n) for k, n in zip(kept, lengths, strict=True)) or sum(kept) == budget
    assert bool(sum(kept)) == bool(lengths)
    if impression:
        assert kept[len(findings)] > 0
    if sum(lengths) <= budget:
        assert kept == lengths


def test_the_share_of_cut_texts_is_counted_and_logged(
    tokenizer: Tokenizer, caplog: pytest.LogCaptureFixture
) -> None:
    reader = ReportReader(tokenizer, max_tokens=12)
    texts = [(FINDINGS, IMPRESSION), ((), IMPRESSION[1:])] * 128
    with caplog.at_level(logging.INFO):
        reader(texts)
        reader(texts[:10])
    assert reader.truncated_share == 0.5
    assert [record.getMessage() for record in caplog.records] == [
        "50.0 % of 256 texts were cut to 12 tokens"
    ]


def test_a_tokenizer_without_berts_tokens_is_refused() -> None:
    from tokenizers import models

    with pytest.raises(CheckpointError, match=r"no \[PAD\], \[CLS\], \[SEP\]"):
        ReportReader(Tokenizer(models.WordPiece(unk_token="[UNK]")), max_tokens=8)


# The encoder


def test_pooled_is_the_first_token_and_tokens_keep_their_sentences(tokenizer: Tokenizer) -> None:
    block = read(tokenizer, (FINDINGS, IMPRESSION), (FINDINGS[:1], ()))
    net = build()
    features = net(block)
    assert features.tokens.shape == (*block.ids.shape, 16)
    assert net.pooled_dim == 16
    torch.testing.assert_close(features.pooled, features.tokens[:, 0])
    assert features.segment is block.segment
    assert features.mask is block.mask


def test_the_pooler_is_used_where_it_is_asked_for(tokenizer: Tokenizer) -> None:
    block = read(tokenizer, (FINDINGS, IMPRESSION))
    net = build(replace(SMALL, pooling="pooler"))
    features = net(block)
    expected = torch.tanh(net.bert.pooler.dense(features.tokens[:, 0]))
    torch.testing.assert_close(features.pooled, expected)


def test_a_row_alone_equals_the_row_in_a_batch(tokenizer: Tokenizer) -> None:
    net = build()
    short = (FINDINGS[:1], IMPRESSION[1:])
    together = net(read(tokenizer, (FINDINGS, IMPRESSION), short))
    alone = net(read(tokenizer, short))
    torch.testing.assert_close(together.pooled[1:], alone.pooled, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("pooling", ["cls", "pooler"])
def test_every_parameter_that_is_not_frozen_gets_a_gradient(
    tokenizer: Tokenizer, pooling: str
) -> None:
    net = build(replace(SMALL, pooling=pooling))  # type: ignore[arg-type]
    features = net(read(tokenizer, (FINDINGS, IMPRESSION)))
    (features.pooled.square().sum() + features.tokens.sum()).backward()
    silent = [n for n, p in net.named_parameters() if p.grad is None]
    assert silent
    assert all(".layer.0." in name for name in silent)


@pytest.mark.parametrize(("embeddings", "first"), [(False, True), (True, False)])
def test_embeddings_are_frozen_only_if_asked(embeddings: bool, first: bool) -> None:
    net = build(replace(SMALL, freeze_embeddings=embeddings))
    assert net.bert.embeddings.word_embeddings.weight.requires_grad is first


def test_parameter_counts_are_those_of_bert_base() -> None:
    base = {"vocab_size": 30522}  # BertConfig's defaults are base size

    def count(config: HFText) -> tuple[int, int]:
        with torch.device("meta"):
            net: nn.Module = config.build()
        every = list(net.parameters())
        trained = [p for p in every if p.requires_grad]
        return sum(p.numel() for p in every), sum(p.numel() for p in trained)

    pooler = HFText(config=base, pooling="pooler")
    assert count(pooler) == (109_482_240, 66_955_008)
    assert count(replace(pooler, freeze_embeddings=True))[1] == 43_117_824


@pytest.mark.parametrize("change", [{"frozen_layers": 4}, {"max_tokens": 65}])
def test_more_than_the_encoder_has_is_refused(change: dict[str, int]) -> None:
    with pytest.raises(RecipeError, match="at most 3 layers and 64 tokens"):
        replace(SMALL, **change).build()


# Folders and repositories


@pytest.fixture
def folder(tmp_path: Path, tokenizer: Tokenizer) -> Path:
    """A foreign folder as transformers writes it."""
    bert = build(replace(SMALL, pooling="pooler")).bert
    bert.save_pretrained(tmp_path)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def local(folder: Path) -> HFText:
    return HFText(name_or_path=str(folder), max_tokens=64, frozen_layers=1)


def test_a_local_folder_gives_its_weights_and_its_tokenizer(
    folder: Path, tokenizer: Tokenizer
) -> None:
    net = local(folder).build().eval()
    block = local(folder).reader()([(FINDINGS, IMPRESSION)])
    assert block.ids.tolist() == read(tokenizer, (FINDINGS, IMPRESSION)).ids.tolist()
    torch.testing.assert_close(net(block).pooled, build()(block).pooled)


def test_weights_come_as_float32_whatever_the_file_holds(folder: Path) -> None:
    build(replace(SMALL, pooling="pooler")).bert.half().save_pretrained(folder)
    assert {p.dtype for p in local(folder).build().parameters()} == {torch.float32}


def test_a_checkpoint_of_ours_is_built_again_without_its_source(
    folder: Path, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    net = local(folder).build().eval()
    net.save_config(kept)
    ReportReader(tokenizer, max_tokens=64).save(kept)
    moved = replace(local(folder), name_or_path="nowhere/at-all", offline=True)
    again = moved.build(kept).eval()
    again.load_state_dict(net.state_dict())
    block = moved.reader(kept)([(FINDINGS, IMPRESSION)])
    torch.testing.assert_close(again(block).pooled, net(block).pooled)


def test_a_pickle_is_refused(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.rename(folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="no safetensors weights"):
        local(folder).build()


def test_missing_weights_are_refused(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    del weights["encoder.layer.2.output.dense.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="1 weights are missing"):
        local(folder).build()


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no tokenizer"):
        load_tokenizer(tmp_path)


def test_an_older_vocabulary_file_is_read(tmp_path: Path, tokenizer: Tokenizer) -> None:
    vocabulary = tokenizer.get_vocab()
    ordered = sorted(vocabulary, key=lambda token: vocabulary[token])
    (tmp_path / "vocab.txt").write_text("\n".join(ordered) + "\n", encoding="utf-8")
    block = ReportReader(load_tokenizer(tmp_path), max_tokens=64)([(FINDINGS, IMPRESSION)])
    assert block.ids.tolist() == read(tokenizer, (FINDINGS, IMPRESSION)).ids.tolist()


def test_a_repository_that_is_not_in_the_cache_is_a_clear_error_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    config = HFText(name_or_path="nobody/no-such-encoder", offline=True)
    with pytest.raises(CheckpointError, match="'nobody/no-such-encoder' cannot be reached"):
        config.build()


def test_a_name_that_cannot_be_a_repository_is_a_clear_error() -> None:
    with pytest.raises(CheckpointError, match="cannot be reached"):
        HFText(name_or_path="not a/valid/name", offline=True).reader()
