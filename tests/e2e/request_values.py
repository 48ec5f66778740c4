"""Values of sampling parameters that a live endpoint is asked for, up to the extremes."""

from __future__ import annotations

HUGE, LONG = "1e300", "9" * 400
# A fragment of a request and what it is refused for; "" where it is answered.
VALUES = [
    *(
        (f'"{name}": {value}', name)
        for name in ("frequency_penalty", "presence_penalty", "temperature", "top_p", "min_p")
        for value in (HUGE, "-1e300", "1e39", LONG, "true", '"1"')
    ),
    *(
        (f'"{name}": {value}', name)
        for name in (
            "top_k",
            "seed",
            "min_tokens",
            "thinking_token_budget",
            "stream_interval",
            "prompt_logprobs",
            "routed_experts_prompt_start",
            "max_tokens",
        )
        for value in (LONG, f"-{LONG}", str(2**64), str(-(2**64)), "1.5", "true", '"1"')
    ),
    *(
        (f'"repetition_penalty": {value}', "repetition_penalty")
        for value in (HUGE, "1e39", "5e-324", "1e-300", "-0.0", "0", "-1", LONG, "true", '"1"')
    ),
    *(
        (f'"{name}": [{value}]', f"{name}[0]")
        for name in ("stop_token_ids", "allowed_token_ids")
        for value in (LONG, str(2**64), "-1", "true", '"1"', "1.5")
    ),
    *(
        (
            f'"repetition_detection": {{"min_count": 2, "max_pattern_size": {value}}}',
            "repetition_detection.max_pattern_size",
        )
        for value in (LONG, str(2**64), "-1", "true", "1.5")
    ),
    *((f'"logit_bias": {{"5": {value}}}', "logit_bias.5") for value in (HUGE, "101", "-100.5", "true", LONG)),
    *((f'"logit_bias": {{"{name}": 1}}', "logit_bias") for name in ("x", "-1", "05", " 5", "1_0", LONG)),
    *(
        (f'"structured_outputs": {{"{name}": {value}}}', f"structured_outputs.{name}")
        for name, value in (
            ("regex", '""'),
            ("grammar", '""'),
            ("json", '""'),
            ("structural_tag", '""'),
            ("choice", "[]"),
            ("choice", '[""]'),
            ("json_object", "false"),
        )
    ),
    *(
        (f'"{name}": {value}', name)
        for name, value in (
            ("priority", "5"),
            ("vllm_xargs", '{"a": 1}'),
            ("kv_transfer_params", '{"a": 1}'),
            ("ec_transfer_params", '{"a": 1}'),
            ("include_reasoning", "false"),
            ("return_tokens_as_token_ids", "true"),
        )
    ),
    ('"use_beam_search": true, "top_p": 0.5', "top_p"),
    ('"stream": 1', "stream"),
    ('"stream": "true"', "stream"),
    ('"ignore_eos": 1', "ignore_eos"),
    ('"logprobs": 1', "logprobs"),
    ('"temperature": 1e-5', "temperature"),
    ('"length_penalty": 2', "length_penalty"),
    ('"stop": [""]', "stop"),
    *(
        (fragment, "")
        for fragment in (
            '"temperature": -0.0',
            '"temperature": 0.01',
            '"temperature": 2',
            '"top_p": 5e-324',
            '"min_p": 5e-324',
            '"min_p": -0.0',
            '"frequency_penalty": -2',
            '"presence_penalty": 1e-300',
            '"repetition_penalty": 1e30',
            '"repetition_penalty": 1e-30',
            '"top_k": 2147483647',
            '"top_k": 5.0',
            '"top_k": -1',
            f'"seed": {2**63 - 1}',
            f'"seed": {-(2**63)}',
            '"logit_bias": {"5": -100}',
            '"structured_outputs": {"regex": "a"}',
            '"structured_outputs": {"choice": ["a", ""]}',
        )
    ),
]
