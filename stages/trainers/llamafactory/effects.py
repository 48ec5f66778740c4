"""Which of LLaMA-Factory's arguments do nothing unless another one is set (`hparams/*_args.py`, version 0.9.5)."""

from __future__ import annotations

from stages.trainers.rules.effect import Effect, common, evaluates, never, with_argument, with_stage, with_value

_BY_TOKENS = "rows come as tokens of the model's own tokenizer"
_NOT_IN_TRAINING = "training does not use it"

EFFECTS = (
    *common("lr_scheduler_type"),
    with_stage(("dpo", "kto"), "pref_beta", "pref_ftx", "ref_model_quantization_bit"),
    with_stage(("dpo",), "pref_loss", "pref_bco_weight", "dpo_label_smoothing", "ld_alpha", "simpo_gamma"),
    with_stage(("kto",), "kto_chosen_weight", "kto_rejected_weight"),
    with_stage(("sft", "pt"), "packing"),
    with_stage(("sft",), "compute_accuracy", "use_dft_loss", "use_asft_loss", "use_eaft_loss"),
    with_stage(
        ("ppo",), "ppo_buffer_size", "ppo_epochs", "ppo_score_norm", "ppo_target", "ppo_whiten_rewards",
        "reward_model_quantization_bit", "reward_model_type",
    ),
    Effect(
        ("simpo_gamma",),
        lambda recipe, get: recipe.train.stage != "dpo" or get("pref_loss") == "simpo",
        "it goes with pref_loss=simpo",
        "set train.args.pref_loss=simpo",
    ),
    Effect(
        (
            "do_sample", "temperature", "top_p", "top_k", "num_beams", "max_length", "max_new_tokens",
            "repetition_penalty", "length_penalty", "skip_special_tokens",
        ),
        lambda recipe, get: recipe.train.stage == "ppo" or get("predict_with_generate"),
        "training writes no answers; infer.sampling says how they are written",
    ),
    Effect(
        ("compute_accuracy", "eval_on_each_dataset"), lambda recipe, get: recipe.train.stage != "sft" or evaluates(get),
        "there is no evaluation during training", "set train.args.eval_strategy",
    ),
    with_argument("predict_with_generate", "eval_num_beams", "generation_max_length", "generation_num_beams"),
    with_argument("use_asft_loss", "asft_alpha"),
    with_argument("use_eaft_loss", "eaft_alpha"),
    with_argument(
        "use_badam", "badam_mask_mode", "badam_mode", "badam_start_block", "badam_switch_interval",
        "badam_switch_mode", "badam_update_ratio", "badam_verbose",
    ),
    with_argument(
        "use_galore", "galore_layerwise", "galore_proj_type", "galore_rank", "galore_scale", "galore_target",
        "galore_update_interval",
    ),
    with_argument(
        "use_apollo", "apollo_layerwise", "apollo_proj", "apollo_proj_type", "apollo_rank", "apollo_scale",
        "apollo_scale_front", "apollo_scale_type", "apollo_target", "apollo_update_interval",
    ),
    with_argument("fp8", "fp8_backend", "fp8_enable_fsdp_float8_all_gather"),
    with_argument("streaming", "buffer_size"),
    with_argument("pissa_init", "pissa_iter", "pissa_convert"),
    with_argument("loraplus_lr_ratio", "loraplus_lr_embedding"),
    with_argument(
        "quantization_bit", "quantization_type", "double_quantization", "quantization_method", "quantization_device_map"
    ),
    with_argument(
        "enable_torch_profiler", "profile_modules", "profiler_active_steps", "profiler_repeat", "profiler_wait_steps",
        "profiler_warmup_steps",
    ),
    with_value("finetuning_type", ("oft",), "oft_block_size", "oft_rank", "oft_target", "module_dropout"),
    with_value("finetuning_type", ("lora",), "lora_alpha", "lora_dropout"),
    Effect(
        ("freeze_trainable_layers", "freeze_trainable_modules", "freeze_extra_modules"),
        lambda _, get: get("finetuning_type") == "freeze" or get("use_llama_pro"),
        "it goes with finetuning_type=freeze", "set train.args.finetuning_type=freeze",
    ),
    never("training has one dataset", "interleave_probs", "mix_strategy"),
    never(_BY_TOKENS, "add_tokens", "add_special_tokens", "init_special_tokens", "split_special_tokens"),
    never("no videos or sounds are learned", "video_fps", "video_max_pixels", "video_maxlen", "video_min_pixels",
          "use_audio_in_video", "audio_sampling_rate"),
    never(
        _NOT_IN_TRAINING, "export_device", "export_legacy_format", "export_quantization_bit",
        "export_quantization_maxlen", "export_quantization_nsamples", "export_size", "infer_dtype",
        "sglang_lora_backend", "sglang_maxlen", "sglang_mem_fraction", "sglang_tp_size", "vllm_enforce_eager",
        "vllm_gpu_util", "vllm_max_lora_rank", "vllm_maxlen",
    ),
)  # fmt: skip
"""In the order in which a recipe is told of them."""
