"""A BERT of the transformers library as text encoder, and the reader that feeds it.

The default is MedCPT's query encoder. Weights are read from safetensors only; a repository that
offers nothing but a pickle is refused. Legend: N texts, L tokens, C features.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import nn

from t3d.errors import CheckpointError, RecipeError
from t3d.model.tensors import TextBlock, TextFeatures

logger = logging.getLogger(__name__)

Sections = tuple[Sequence[str], Sequence[str]]  # sentences of findings, of impression

PAD, UNK, CLS, SEP, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
SPECIAL_TOKENS = (PAD, UNK, CLS, SEP, MASK)  # numbers 0 to 4 in a vocabulary trained here
NUM_ADDED = 2  # [CLS] and [SEP]
TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "text_config.json"  # what a checkpoint of ours keeps; a foreign one has the next
FOREIGN_CONFIG_FILE = "config.json"
FIRST_LOG = 256  # texts


@dataclass(frozen=True, slots=True, kw_only=True)
class HFText:
    """Settings of a BERT text encoder.

    Source:
        "Med-CPT": a third-party page on T3D v3 (query or article encoder: not found). 256
        tokens, first 6 of 12 layers frozen: MERL, by the same first author; our choice here.
    """

    kind: ClassVar[str] = "hf_text"

    name_or_path: str = "ncbi/MedCPT-Query-Encoder"  # repository or local folder
    revision: str | None = None  # of the repository; None = its newest
    offline: bool = False  # True = never ask the network, the local cache must do
    max_tokens: int = 256  # with [CLS] and [SEP]
    frozen_layers: int = 6
    freeze_embeddings: bool = False
    pooling: Literal["cls", "pooler"] = "cls"
    config: Mapping[str, Any] | None = None  # BertConfig fields: random weights of that shape

    def build(self, folder: Path | None = None) -> HFTextNet:
        """Make the module.

        Args:
            folder: A checkpoint of ours, whose weights the caller loads afterwards: the shape
                is read there and nothing is fetched. None = the encoder's own source.

        Raises:
            CheckpointError: The weights cannot be reached, are incomplete or are a pickle.
            RecipeError: More layers are frozen or more tokens asked for than there are.
        """
        if self.config is not None:
            net = _random_bert(self.config)
        elif folder is not None:
            net = _random_bert(_read_config(folder))
        else:
            net = _load_bert(self._source(weights=True))
        return HFTextNet(self, net)

    def reader(self, folder: Path | None = None) -> ReportReader:
        """Make the tokenizer side.

        Args:
            folder: Where a checkpoint keeps `tokenizer.json`; None = the encoder's source.

        Raises:
            CheckpointError: There is no tokenizer.
        """
        source = folder if folder is not None else self._source(weights=False)
        return ReportReader(load_tokenizer(source), max_tokens=self.max_tokens)

    def _source(self, *, weights: bool) -> Path:
        """Folder that holds the files, fetched if it has to be."""
        if Path(self.name_or_path).is_dir():
            return Path(self.name_or_path)
        return _fetch(self.name_or_path, self.revision, offline=self.offline, weights=weights)


class HFTextNet(nn.Module):
    """TextBlock -> TextFeatures.

    Attributes:
        pooled_dim: Channels of `pooled` and of `tokens`.
    """

    def __init__(self, config: HFText, bert: Any) -> None:
        super().__init__()
        self.config = config
        self.bert = bert
        self.pooled_dim = int(bert.config.hidden_size)
        if config.pooling == "cls":
            bert.pooler = None  # unused weights would wait for a gradient that never comes
        _check_limits(config, bert)
        _freeze(config, bert)

    def forward(self, block: TextBlock) -> TextFeatures:
        """Encode texts.

        Args:
            block: ids (N, L) from `ReportReader`.

        Returns:
            pooled (N, C): the last hidden state of [CLS], or BERT's pooler of it; tokens
            (N, L, C); mask and segment as they came.
        """
        out = self.bert(input_ids=block.ids, attention_mask=block.mask.long())
        tokens = out.last_hidden_state
        pooled = tokens[:, 0] if self.config.pooling == "cls" else out.pooler_output
        return TextFeatures(pooled=pooled, tokens=tokens, mask=block.mask, segment=block.segment)

    def save_config(self, folder: Path) -> None:
        """Write the shape, so that `HFText.build(folder)` makes it again without a network."""
        (folder / CONFIG_FILE).write_text(self.bert.config.to_json_string(), encoding="utf-8")


class ReportReader:
    """Reports as sentences -> TextBlock: [CLS] findings impression [SEP], cut between sentences.

    Where a report is too long, the impression is kept and findings are dropped from the end.
    """

    def __init__(self, tokenizer: Tokenizer, *, max_tokens: int) -> None:
        self.tokenizer = Tokenizer.from_str(tokenizer.to_str())  # the caller's stays as it is
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self.max_tokens = max_tokens
        self.num_texts = 0
        self.num_truncated = 0
        self._next_log = FIRST_LOG
        missing = [t for t in (PAD, CLS, SEP) if tokenizer.token_to_id(t) is None]
        if missing:
            raise CheckpointError(
                f"the tokenizer has no {', '.join(missing)}",
                expected="a WordPiece tokenizer with BERT's special tokens",
                fix="name a BERT model, or train one with train_wordpiece",
            )

    @property
    def truncated_share(self) -> float:
        """Share of the texts read so far that lost a sentence or words."""
        return self.num_truncated / max(self.num_texts, 1)

    def __call__(self, texts: Sequence[Sections]) -> TextBlock:
        """Tokenise texts, padded to the longest of them.

        Args:
            texts: N pairs (sentences of findings, sentences of impression); both may be empty.

        Returns:
            A TextBlock on the CPU whose `study` is 0 .. N - 1. `segment` counts the sentences
            of findings and then impression as given, dropped ones included; -1 = [CLS], [SEP]
            and padding.
        """
        rows = [self._row(sections) for sections in texts]
        longest = max((len(ids) for ids, _ in rows), default=NUM_ADDED)
        ids = torch.full((len(rows), longest), self._id(PAD), dtype=torch.long)
        segment = torch.full((len(rows), longest), -1, dtype=torch.long)
        mask = torch.zeros(len(rows), longest, dtype=torch.bool)
        for number, (row, owner) in enumerate(rows):
            ids[number, : len(row)] = torch.tensor(row)
            segment[number, : len(row)] = torch.tensor(owner)
            mask[number, : len(row)] = True
        self._log()
        return TextBlock(ids=ids, mask=mask, study=torch.arange(len(rows)), segment=segment)

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json` into a checkpoint."""
        self.tokenizer.save(str(folder / TOKENIZER_FILE))

    def _row(self, sections: Sections) -> tuple[list[int], list[int]]:
        """Token ids and sentence numbers of one text."""
        findings, impression = sections
        encoded = self.tokenizer.encode_batch([*findings, *impression], add_special_tokens=False)
        pieces = [entry.ids for entry in encoded]
        lengths = [len(piece) for piece in pieces]
        kept = cut(lengths[: len(findings)], lengths[len(findings) :], self.max_tokens - NUM_ADDED)
        self.num_texts += 1
        self.num_truncated += kept != lengths
        ids, owner = [self._id(CLS)], [-1]
        for number, (piece, length) in enumerate(zip(pieces, kept, strict=True)):
            ids += piece[:length]
            owner += [number] * length
        return [*ids, self._id(SEP)], [*owner, -1]

    def _id(self, token: str) -> int:
        number = self.tokenizer.token_to_id(token)
        assert number is not None, token
        return int(number)

    def _log(self) -> None:
        """Say how much is cut, ever more rarely."""
        if self.num_texts >= self._next_log:
            self._next_log = 2 * self.num_texts
            logger.info(
                "%.1f %% of %d texts were cut to %d tokens",
                100 * self.truncated_share,
                self.num_texts,
                self.max_tokens,
            )


def cut(findings: Sequence[int], impression: Sequence[int], budget: int) -> list[int]:
    """How many tokens of each sentence are kept.

    Whole sentences of the impression from its start, then of the findings, as long as they
    fit; a text whose first sentence alone is too long keeps the start of that sentence.

    Example:
        >>> cut([4, 4, 4], [3], 12)
        [4, 4, 0, 3]
    """
    kept_impression = _fitting(impression, budget)
    if impression and not any(kept_impression):
        kept_impression[0] = budget
    left = budget - sum(kept_impression)
    kept_findings = _fitting(findings, left)
    if findings and not any(kept_findings) and not any(kept_impression):
        kept_findings[0] = min(left, findings[0])
    return kept_findings + kept_impression


def _fitting(lengths: Sequence[int], budget: int) -> list[int]:
    """Lengths from the start while their sum fits, then zeros."""
    kept, left = [], budget
    for length in lengths:
        left = left - length if length <= left else -1
        kept.append(length if left >= 0 else 0)
    return kept


def train_wordpiece(sentences: Iterable[str], size: int) -> Tokenizer:
    """Train a lower-case WordPiece vocabulary, for small encoders without a pretrained one.

    The same sentences give the same vocabulary. The trainer by itself does not promise that: it
    numbers pieces such as "##a" in the order of a hash table and breaks ties by number. Here
    every such piece has its number before training starts.

    Args:
        sentences: Training reports only.
        size: Entries at most, the special tokens and two pieces a character included.
    """
    texts = list(sentences)
    learner = _wordpiece({})
    assert learner.normalizer is not None
    characters = sorted({c for text in texts for c in learner.normalizer.normalize_str(text)})
    pieces = [f"##{c}" for c in characters if not c.isspace()]
    trainer = trainers.WordPieceTrainer(
        vocab_size=size, special_tokens=[*SPECIAL_TOKENS, *pieces], show_progress=False
    )
    learner.train_from_iterator(texts, trainer)
    trained = _wordpiece(learner.get_vocab())  # a fresh one, where those pieces are not special
    trained.add_special_tokens(list(SPECIAL_TOKENS))
    return trained


def _wordpiece(vocabulary: dict[str, int]) -> Tokenizer:
    """BERT's lower-case tokenizer over a vocabulary."""
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=UNK))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def load_tokenizer(folder: Path) -> Tokenizer:
    """Read `tokenizer.json`, or the `vocab.txt` of an older BERT.

    Raises:
        CheckpointError: Neither file is there.
    """
    if (folder / TOKENIZER_FILE).is_file():
        return Tokenizer.from_file(str(folder / TOKENIZER_FILE))
    if (folder / "vocab.txt").is_file():
        from transformers import BertTokenizer

        fast = BertTokenizer.from_pretrained(str(folder), local_files_only=True)
        return Tokenizer.from_str(fast.backend_tokenizer.to_str())
    raise CheckpointError(
        f"no tokenizer in {folder.name}",
        expected=f"{TOKENIZER_FILE} or vocab.txt",
        fix="put the tokenizer of the text encoder there",
    )


def _fetch(name: str, revision: str | None, *, offline: bool, weights: bool) -> Path:
    """Local folder of a repository's settings, tokenizer and safetensors; never a pickle."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    patterns = ["*.json", "vocab.txt", *(["*.safetensors"] if weights else [])]
    try:
        folder = snapshot_download(
            name, revision=revision, allow_patterns=patterns, local_files_only=offline
        )
    except (OSError, HFValidationError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"text encoder '{name}' cannot be reached: {reason}",
            expected="a local folder, a repository in the local cache, or a network",
            fix="download it on another machine and give its folder as text.name_or_path",
        ) from error
    return Path(folder)


def _load_bert(folder: Path) -> Any:
    """Pretrained weights as float32; every weight must be there."""
    from transformers import AutoModel

    if not any(folder.glob("*.safetensors")):
        raise CheckpointError(
            f"no safetensors weights in {folder.name}",
            expected="model.safetensors (a pickle is never opened)",
            fix="convert the weights once, or name a revision that holds the conversion",
        )
    bert, info = AutoModel.from_pretrained(
        str(folder),
        local_files_only=True,
        use_safetensors=True,
        trust_remote_code=False,
        dtype=torch.float32,
        output_loading_info=True,
    )
    missing = sorted(key for key in info["missing_keys"] if not key.startswith("pooler."))
    if missing:
        raise CheckpointError(
            f"{len(missing)} weights are missing in {folder.name}, first {missing[0]}",
            expected="every weight of the encoder",
            fix="fetch the weights again",
        )
    return bert


def _random_bert(fields: Mapping[str, Any]) -> Any:
    """A BERT of a given shape with random weights."""
    from transformers import BertConfig, BertModel

    known = {key: value for key, value in fields.items() if key != "model_type"}
    return BertModel(BertConfig(**known))


def _read_config(folder: Path) -> dict[str, Any]:
    """Shape that a checkpoint of ours, or a foreign folder, declares."""
    from transformers import BertConfig

    for name in (CONFIG_FILE, FOREIGN_CONFIG_FILE):
        if (folder / name).is_file():
            return dict(BertConfig.from_json_file(folder / name).to_dict())
    raise CheckpointError(
        f"no {CONFIG_FILE} in {folder.name}",
        expected="the shape of the text encoder",
        fix="save the checkpoint again",
    )


def _check_limits(config: HFText, bert: Any) -> None:
    """Raise where the settings ask for more than this network has."""
    layers = getattr(getattr(bert, "encoder", None), "layer", None)
    if layers is None:
        raise RecipeError(
            f"text encoder of type '{bert.config.model_type}'",
            expected="BERT's layout: embeddings, encoder.layer",
            fix="name a BERT model",
        )
    positions = bert.config.max_position_embeddings
    if config.frozen_layers > len(layers) or config.max_tokens > positions:
        raise RecipeError(
            f"hf_text: frozen_layers {config.frozen_layers}, max_tokens {config.max_tokens}",
            expected=f"at most {len(layers)} layers and {positions} tokens, as the encoder has",
            fix="lower text.frozen_layers or text.max_tokens",
        )


def _freeze(config: HFText, bert: Any) -> None:
    """Take the lower layers, and the embeddings if asked, out of training."""
    parts = list(bert.encoder.layer[: config.frozen_layers])
    parts += [bert.embeddings] if config.freeze_embeddings else []
    for part in parts:
        part.requires_grad_(False)
