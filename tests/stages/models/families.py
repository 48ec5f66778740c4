# ruff: noqa: E501
"""Tokenizers whose chat templates behave as well-known families' do. The templates are written here for that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.in_environment import with_torch

_TURNS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_DATED = (
    "{{ bos_token }}<|start_header_id|>system<|end_header_id|>\n\nToday Date: "
    "{% if date_string is defined %}{{ date_string }}{% else %}{{ strftime_now('%d %b %Y') }}{% endif %}\n\n"
    "{% if messages[0].role == 'system' %}{{ messages[0].content | trim }}{% set rest = messages[1:] %}"
    "{% else %}{% set rest = messages %}{% endif %}<|eot_id|>"
    "{% for m in rest %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
_SWITCH = "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}"
# Earlier turns lose their thoughts; the last answer always has a think block; without thinking a request has it too.
_THINKING = (
    "{% if tools %}<|im_start|>system\n# Tools\n{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}<|im_end|>\n{% endif %}"
    "{% for m in messages %}{% if m.role == 'assistant' %}<|im_start|>assistant\n"
    "{% if loop.last %}<think>\n{{ (m.reasoning_content or '').strip('\n') }}\n</think>\n\n{% endif %}{{ m.content.lstrip('\n') }}"
    "{% for c in m.tool_calls or [] %}\n<tool_call>\n{{ {'name': c.function.name, 'arguments': c.function.arguments} | tojson }}\n"
    "</tool_call>{% endfor %}<|im_end|>\n"
    "{% elif m.role == 'tool' %}<|im_start|>user\n<tool_response>\n{{ m.content }}\n</tool_response><|im_end|>\n"
    "{% else %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n" + _SWITCH + "{% endif %}"
)
_ALWAYS_THINKING = _THINKING.replace(_SWITCH, "<think>\n")
_NO_SYSTEM = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ m.content | trim }}<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
_STRICT = (
    "{{ bos_token }}{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate user/assistant') }}{% endif %}"
    "{% if m.role == 'user' %}[INST] {{ m.content.strip() }} [/INST]{% else %} {{ m.content.strip() }}{{ eos_token }}"
    "{% endif %}{% endfor %}"
)
_PHI = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}"
)
# A request ends inside a thought, and an answer loses its own.
_OPEN_THOUGHT = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}<|Assistant|>"
    "{{ m.content.split('</think>')[-1] }}{{ eos_token }}{% else %}<|User|>{{ m.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|Assistant|><think>\n{% endif %}"
)
_MARKED = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|im_end|>"
    "{% endgeneration %}{% else %}{{ m.content }}<|im_end|>{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Content is a list of parts in turns, as templates of models that see have it, and a tool's result is a text.
_PARTS = (
    "{% if tools %}<|im_start|>system\n{{ tools | tojson }}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'tool' %}{{ m.content }}{% else %}"
    "{% for part in m.content %}{% if part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %}{% endif %}"
    "{% for c in m.tool_calls or [] %}<tool_call>\n"
    "{{ {'name': c.function.name, 'arguments': c.function.arguments} | tojson }}\n</tool_call>{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# A call is an object that is written as JSON whole.
_WHOLE_CALLS = (
    "{% if tools %}<|im_start|>system\n{{ tools | tojson }}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for c in m.tool_calls or [] %}<tool_call>{{ c.function | tojson }}</tool_call>{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# The system message stands before the first question, and content may be a text or parts.
_FOLDED = (
    "{{ bos_token }}{% set first = '' %}{% set rest = messages %}{% if messages[0].role == 'system' %}{% set rest = messages[1:] %}"
    "{% set first = (messages[0].content if messages[0].content is string else messages[0].content[0].text) + '\n\n' %}{% endif %}"
    "{% for m in rest %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
    "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ first if loop.first }}"
    "{% if m.content is string %}{{ m.content | trim }}{% else %}{% for part in m.content %}{{ part.text | trim }}{% endfor %}{% endif %}"
    "<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
# Calls as XML, whose values are texts.
_XML_CALLS = (
    "{% if tools %}<|im_start|>system\n{% for t in tools %}<function><name>{{ t.function.name }}</name></function>{% endfor %}<|im_end|>\n{% endif %}"
    "{% for m in messages %}{% if m.role == 'tool' %}<|im_start|>user\n<tool_response>\n{{ m.content }}\n</tool_response>{% else %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}{% for c in m.tool_calls or [] %}<tool_call>\n<function={{ c.function.name }}>\n"
    "{% for name, value in c.function.arguments | items %}<parameter={{ name }}>\n"
    "{{ value if value is string else value | tojson }}\n</parameter>\n{% endfor %}</function>\n</tool_call>{% endfor %}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# A request without thinking ends a thought that nobody began.
_CLOSED_THOUGHT = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}<|Assistant|></think>"
    "{{ m.content.split('</think>', 1)[-1] }}{{ eos_token }}{% elif m.role == 'user' %}<|User|>{{ m.content }}"
    "{% else %}{{ m.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|Assistant|>{{ '<think>' if thinking else '</think>' }}{% endif %}"
)

LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
ONE_CALL = "{% set n = messages | length + 6 %}{{ n ** 500000000 }}"
"""Does not end, in one call that no exception interrupts."""

_THINK = ("<think>", "</think>")  # whole tokens, but not special ones, as in the families' own tokenizers
_CHATML = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *_THINK]
_LLAMA = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
FAMILIES: dict[str, tuple[list[str], str, str, str | None]] = {
    "chatml": (_CHATML, "<|endoftext|>", "<|im_end|>", _TURNS),
    "llama3.1": (_LLAMA, "<|begin_of_text|>", "<|eot_id|>", _DATED),
    "qwen3": (_CHATML, "<|endoftext|>", "<|im_end|>", _THINKING),
    "gemma": (["<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"], "<bos>", "<eos>", _NO_SYSTEM),
    "mistral": (["<s>", "</s>", "[INST]", "[/INST]"], "<s>", "</s>", _STRICT),
    "phi": (["<|endoftext|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"], "<|endoftext|>", "<|endoftext|>", _PHI),
    "deepseek-r1": (["<|bos|>", "<|eos|>", "<|User|>", "<|Assistant|>", *_THINK], "<|bos|>", "<|eos|>", _OPEN_THOUGHT),
    "parts": (_CHATML, "<|endoftext|>", "<|im_end|>", _PARTS),
    "hermes": (_CHATML, "<|endoftext|>", "<|im_end|>", _WHOLE_CALLS),
    "gemma3": (["<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"], "<bos>", "<eos>", _FOLDED),
    "qwen3-coder": (_CHATML, "<|endoftext|>", "<|im_end|>", _XML_CALLS),
    "qwen3-thinking": (_CHATML, "<|endoftext|>", "<|im_end|>", _ALWAYS_THINKING),
    "deepseek-v3.1": (["<|bos|>", "<|eos|>", "<|User|>", "<|Assistant|>", *_THINK], "<|bos|>", "<|eos|>", _CLOSED_THOUGHT),
    "base": (_CHATML, "<|endoftext|>", "<|endoftext|>", None),
    "generation marks": (_CHATML, "<|endoftext|>", "<|im_end|>", _MARKED),
}  # fmt: skip
"""Name -> (special tokens, first token, last token, template)."""


def tokenizer_of(family: str) -> Any:
    """A byte tokenizer with the family's special tokens and template."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special, bos, eos, template = FAMILIES[family]
    names = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={name: at for at, name in enumerate(names)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([name for name in special if name not in _THINK])
    tokenizer.add_tokens([AddedToken(name, special=False) for name in special if name in _THINK])
    given = {"chat_template": template} if template else {}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=bos, eos_token=eos, pad_token=eos, **given)


def sentencepiece_like(template: str, *, older: bool) -> Any:
    """A tokenizer that puts a space before a text. older: before each part between special tokens, else before all."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<s>", "</s>", "<unk>", "[INST]", "[/INST]"]
    names = [*special, "\u2581", "\n", *map(chr, range(33, 127)), "\u2581A", "\u2581\u2581"]
    vocab = {name: at for at, name in enumerate(names)}
    merges = [("\u2581", "A"), ("\u2581", "\u2581")]
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>"))
    if older:
        steps = [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
        tokenizer.normalizer = normalizers.Sequence(steps)
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.Fuse()])
    tokenizer.add_special_tokens(special)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>", chat_template=template
    )


@with_torch
def save_tokenizer(family: str, folder: Path) -> Path:
    """The family's tokenizer alone."""
    tokenizer_of(family).save_pretrained(folder)
    return folder


@with_torch
def save_model(family: str, folder: Path, *, spread: float = 0.02) -> Path:
    """The family's tokenizer with a tiny model of random weights. spread: of the weights; 0.2 learns in few steps."""
    from transformers import LlamaConfig, LlamaForCausalLM, set_seed

    save_tokenizer(family, folder)
    tokenizer = tokenizer_of(family)
    set_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=2048, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, initializer_range=spread,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder
