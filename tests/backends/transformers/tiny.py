"""Models of a few thousand random weights, made with their own library, whose real code then runs on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|> {{ m['content'] }}<|end|> {% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL = ["<|system|>", "<|user|>", "<|assistant|>", "<|tool|>", "<|end|>", "<pad>"]


def tokenizer(folder: Path) -> Any:
    """A byte-level BPE that has read a few sentences, with a chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    words = "hello how can I help you today tell me a long story count from one to fifty".split()
    bpe.train_from_iterator([" ".join(words), " ".join(reversed(words))] * 20, trainer)
    made = PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token="<|end|>", pad_token="<pad>", chat_template=TEMPLATE
    )
    made.save_pretrained(folder)
    return made


def chat_model(folder: Path, family: str, *, head_dim: int = 8) -> str:
    """-> a folder with a tiny model of that architecture and its tokenizer."""
    import torch
    import transformers

    words = tokenizer(folder)
    shape = {
        "vocab_size": len(words),
        "hidden_size": 4 * head_dim,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "pad_token_id": words.pad_token_id,
        "bos_token_id": words.eos_token_id,
        "eos_token_id": words.eos_token_id,
    }
    configs = {
        "llama": lambda: transformers.LlamaConfig(**shape),
        "phi3": lambda: transformers.Phi3Config(**shape),
        "gemma3": lambda: transformers.Gemma3TextConfig(
            **shape, head_dim=head_dim, sliding_window=64
        ),
        "qwen2": lambda: transformers.Qwen2Config(**shape),
    }
    torch.manual_seed(1)
    model = transformers.AutoModelForCausalLM.from_config(configs[family]())
    model.save_pretrained(folder)
    return str(folder)


def whisper(folder: Path, tokenizer_file: Path) -> str:
    """-> a folder with an English Whisper of two small layers. `tokenizer_file`: a Whisper's own."""
    import torch
    import transformers

    words = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tokenizer_file))
    end = words.convert_tokens_to_ids("<|endoftext|>")
    start = words.convert_tokens_to_ids("<|startoftranscript|>")
    config = transformers.WhisperConfig(
        vocab_size=len(words),
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        pad_token_id=end,
        bos_token_id=end,
        eos_token_id=end,
        decoder_start_token_id=start,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    torch.manual_seed(2)
    model = transformers.WhisperForConditionalGeneration(config)
    model.generation_config.is_multilingual = False
    model.generation_config.no_timestamps_token_id = words.convert_tokens_to_ids("<|notimestamps|>")
    model.save_pretrained(folder)
    processor = transformers.WhisperProcessor(
        transformers.WhisperFeatureExtractor(),
        transformers.WhisperTokenizer.from_pretrained(str(tokenizer_file.parent)),
    )
    processor.save_pretrained(folder)
    return str(folder)


def kyutai(folder: Path) -> str:
    """-> a folder with Kyutai's speech-to-text of two small layers over a tiny Mimi codec."""
    import torch
    import transformers

    words = tokenizer(folder)
    books, sounds = 4, 32
    codec = transformers.MimiConfig(
        hidden_size=16,
        num_filters=4,
        num_residual_layers=1,
        codebook_size=sounds,
        codebook_dim=8,
        vector_quantization_hidden_dimension=8,
        num_quantizers=books,
        num_semantic_quantizers=1,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
        intermediate_size=32,
        upsample_groups=16,
    )
    text = len(words)
    config = transformers.KyutaiSpeechToTextConfig(
        codec_config=codec,
        codebook_vocab_size=sounds + 1,
        vocab_size=text + 1,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        ffn_dim=64,
        num_codebooks=books,
        audio_bos_token_id=sounds,
        audio_pad_token_id=text + 1 + books * (sounds + 1),
        pad_token_id=words.pad_token_id,
        bos_token_id=text,
    )
    torch.manual_seed(3)
    model = transformers.KyutaiSpeechToTextForConditionalGeneration(config)
    model.save_pretrained(folder)
    extractor = transformers.KyutaiSpeechToTextFeatureExtractor(
        audio_delay_seconds=2.5, audio_silence_prefix_seconds=1.0
    )
    transformers.KyutaiSpeechToTextProcessor(extractor, words).save_pretrained(folder)
    return str(folder)
