"""Names of ATen's operators by family: the rules of `signatures.py` that need no more than a name.

A new operator is a word in one of these tables. The module knows no shapes.
"""

from collections.abc import Mapping
from types import MappingProxyType

from falcon_ray.knowledge.operators.operator import Family


def base_name(name: str) -> str:
    """The name without the underscore of the variant that works in place."""
    return name.removesuffix("_") if not name.endswith("__") else name


def is_transposed(name: str) -> bool:
    """Whether a convolution spreads its input instead of gathering from it."""
    return name.startswith("conv_transpose")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


ACTIVATION = _words(
    "relu relu6 gelu silu mish hardswish hardsigmoid hardtanh sigmoid tanh leaky_relu elu selu "
    "celu prelu softplus log_sigmoid glu threshold rrelu hardshrink softshrink"
)
ELEMENTWISE = _words(
    "add sub subtract rsub mul multiply div divide true_divide floor_divide remainder fmod pow "
    "float_power square sqrt rsqrt reciprocal exp exp2 expm1 log log2 log10 log1p logit sin cos "
    "tan asin acos atan arctan atan2 arctan2 sinh cosh erf erfc erfinv abs absolute neg negative "
    "sign sgn positive floor ceil round trunc frac clamp clip clamp_min clamp_max maximum minimum "
    "fmax fmin where masked_fill eq ne lt le gt ge equal not_equal less less_equal greater "
    "greater_equal logical_and logical_or logical_not logical_xor bitwise_and bitwise_or "
    "bitwise_not bitwise_xor bitwise_left_shift bitwise_right_shift __and__ __or__ __xor__ "
    "__lshift__ __rshift__ __iand__ __ior__ isnan isinf isfinite isposinf isneginf nan_to_num "
    "addcmul addcdiv lerp hypot logaddexp _weight_norm cumsum cumprod logcumsumexp outer ger polar "
    "dropout feature_dropout alpha_dropout native_dropout bernoulli rand randn randint randperm "
    "rand_like randn_like normal normal_functional uniform random exponential fake_quantize "
    "heaviside xlogy special_xlogy special_expit special_erf cross linalg_cross bucketize isin "
    "isclose complex"
)
NORM = _words(
    "layer_norm native_layer_norm rms_norm _fused_rms_norm group_norm native_group_norm "
    "instance_norm batch_norm native_batch_norm _native_batch_norm_legit "
    "_native_batch_norm_legit_no_training cudnn_batch_norm _batch_norm_impl_index"
)
SOFTMAX = _words("softmax _softmax log_softmax _log_softmax _safe_softmax special_softmax")
POOL = _words(  # reductions stream their input as pooling does
    "max_pool1d max_pool2d max_pool3d max_pool2d_with_indices max_pool3d_with_indices avg_pool1d "
    "avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d "
    "_adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d "
    "adaptive_max_pool3d lp_pool2d mean sum nansum nanmean prod amax amin aminmax max min argmax "
    "argmin std var std_mean var_mean norm linalg_vector_norm linalg_norm frobenius_norm all any "
    "logsumexp count_nonzero pairwise_distance cosine_similarity trace"
)
MOVE = _words(
    "cat concat concatenate stack hstack vstack dstack clone contiguous copy to _to_copy type_as "
    "reshape flatten reshape_as view_copy expand_copy permute_copy repeat repeat_interleave tile "
    "roll flip fliplr flipud rot90 pad constant_pad_nd _pad_enum reflection_pad1d reflection_pad2d "
    "reflection_pad3d replication_pad1d replication_pad2d replication_pad3d index index_select "
    "gather take take_along_dim scatter scatter_add scatter_reduce index_put _index_put_impl "
    "index_add index_copy index_fill slice_scatter select_scatter masked_scatter tril triu "
    "pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle im2col col2im one_hot "
    "diag diag_embed block_diag zeros ones full arange linspace eye zeros_like ones_like full_like "
    "new_zeros new_ones new_full scalar_tensor tensor fill zero tril_indices triu_indices "
    "meshgrid cartesian_prod broadcast_tensors upsample_nearest1d upsample_nearest2d "
    "upsample_nearest3d _upsample_nearest_exact1d _upsample_nearest_exact2d upsample_linear1d "
    "upsample_bilinear2d upsample_bicubic2d upsample_trilinear3d _upsample_bilinear2d_aa "
    "_upsample_bicubic2d_aa grid_sampler grid_sampler_2d grid_sampler_3d affine_grid_generator "
    "split_copy split_with_sizes_copy unbind_copy vander kron"
)
IDLE = _words(  # the last two mark a constant; only fake tensors copy it
    "empty empty_like empty_strided new_empty new_empty_strided resize set lift lift_fresh"
)

PLAIN: Mapping[str, Family] = MappingProxyType(
    {
        **dict.fromkeys(ACTIVATION, Family.ACTIVATION),
        **dict.fromkeys(ELEMENTWISE, Family.ELEMENTWISE),
        **dict.fromkeys(POOL, Family.POOL),
        **dict.fromkeys(MOVE, Family.MOVE),
    }
)
"""Names whose canonical dimensions are the elements read and written."""

CONVOLUTIONS = _words(
    "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d convolution "
    "_convolution mkldnn_convolution cudnn_convolution"
)
CONV_FAMILIES = frozenset(
    {
        Family.CONV_1X1,
        Family.CONV_3X3,
        Family.CONV_LARGE,
        Family.CONV_DEPTHWISE,
        Family.CONV_GROUPED,
    }
)
GATES: Mapping[str, int] = MappingProxyType(
    {
        "lstm": 4,
        "gru": 3,
        "rnn_tanh": 1,
        "rnn_relu": 1,
        "lstm_cell": 4,
        "gru_cell": 3,
        "rnn_tanh_cell": 1,
        "rnn_relu_cell": 1,
    }
)

PRODUCTS = _words("linear matmul mm bmm addmm baddbmm addbmm mv addmv dot vdot einsum")
ATTENTIONS = _words(
    "scaled_dot_product_attention _scaled_dot_product_attention_math "
    "_scaled_dot_product_flash_attention _scaled_dot_product_flash_attention_for_cpu "
    "_scaled_dot_product_efficient_attention _scaled_dot_product_cudnn_attention"
)
EMBEDDINGS = _words("embedding embedding_bag _embedding_bag _embedding_bag_forward_only")

GATHERING = _words(
    "embedding embedding_bag _embedding_bag _embedding_bag_forward_only index "
    "index_select gather take take_along_dim"
)
"""They read of their first tensor only what they write, but for `embedding_bag`."""
OVERWRITING = _words("fill zero copy normal uniform random bernoulli exponential")
"""In place, they do not read what they overwrite."""
SCATTERING: Mapping[str, str] = MappingProxyType(
    {
        "scatter": "src",
        "scatter_add": "src",
        "index_put": "values",
        "_index_put_impl": "values",
        "index_add": "source",
        "index_copy": "source",
    }
)
"""In place, they write only as much as the argument named here holds."""
