"""Stage `infer`."""
