"""Names that people try and that are no operation here: what stands in their place, or why nothing does.

Names of PyTorch without the leading "torch." or "torch.Tensor.", and some of NumPy's. Each group has a hint of its own
(its key), whose sentence `docs/fidelity.md` shows too; `near` in a group of pairs is what to call instead.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from difflib import SequenceMatcher, get_close_matches
from functools import cache

from engine.errors import Hint


def _pairs(text: str) -> dict[str, tuple[str, ...]]:
    """Lines of a name and, after a colon, what is called instead."""
    rows = (line.partition(":") for line in text.splitlines() if line.strip())
    return {name: tuple(near.split()) for names, _, near in rows for name in names.split()}


# ---------------------------------------------------------------- classes that hold tensors

MODULES = _pairs("""
Linear: nn.functional.linear
Bilinear: nn.functional.bilinear
Identity: clone
Flatten: flatten
Unflatten: unflatten
Conv1d: nn.functional.conv1d
Conv2d: nn.functional.conv2d
Conv3d: nn.functional.conv3d
ConvTranspose1d: nn.functional.conv_transpose1d
ConvTranspose2d: nn.functional.conv_transpose2d
ConvTranspose3d: nn.functional.conv_transpose3d
Fold: nn.functional.fold
Unfold: nn.functional.unfold
MaxPool1d: nn.functional.max_pool1d
MaxPool2d: nn.functional.max_pool2d
MaxPool3d: nn.functional.max_pool3d
MaxUnpool1d: nn.functional.max_unpool1d
MaxUnpool2d: nn.functional.max_unpool2d
MaxUnpool3d: nn.functional.max_unpool3d
AvgPool1d: nn.functional.avg_pool1d
AvgPool2d: nn.functional.avg_pool2d
AvgPool3d: nn.functional.avg_pool3d
FractionalMaxPool2d: nn.functional.fractional_max_pool2d
FractionalMaxPool3d: nn.functional.fractional_max_pool3d
LPPool1d: nn.functional.lp_pool1d
LPPool2d: nn.functional.lp_pool2d
LPPool3d: nn.functional.lp_pool3d
AdaptiveMaxPool1d: nn.functional.adaptive_max_pool1d
AdaptiveMaxPool2d: nn.functional.adaptive_max_pool2d
AdaptiveMaxPool3d: nn.functional.adaptive_max_pool3d
AdaptiveAvgPool1d: nn.functional.adaptive_avg_pool1d
AdaptiveAvgPool2d: nn.functional.adaptive_avg_pool2d
AdaptiveAvgPool3d: nn.functional.adaptive_avg_pool3d
ReflectionPad1d ReflectionPad2d ReflectionPad3d ReplicationPad1d ReplicationPad2d ReplicationPad3d: nn.functional.pad
ConstantPad1d ConstantPad2d ConstantPad3d ZeroPad1d ZeroPad2d ZeroPad3d: nn.functional.pad
CircularPad1d CircularPad2d CircularPad3d: nn.functional.pad
ELU: nn.functional.elu
Hardshrink: nn.functional.hardshrink
Hardsigmoid: nn.functional.hardsigmoid
Hardtanh: nn.functional.hardtanh
Hardswish: nn.functional.hardswish
LeakyReLU: nn.functional.leaky_relu
LogSigmoid: nn.functional.logsigmoid
PReLU: nn.functional.prelu
ReLU: nn.functional.relu
ReLU6: nn.functional.relu6
RReLU: nn.functional.rrelu
SELU: nn.functional.selu
CELU: nn.functional.celu
GELU: nn.functional.gelu
Sigmoid: sigmoid
SiLU: nn.functional.silu
Mish: nn.functional.mish
Softplus: nn.functional.softplus
Softshrink: nn.functional.softshrink
Softsign: nn.functional.softsign
Tanh: tanh
Tanhshrink: nn.functional.tanhshrink
Threshold: nn.functional.threshold
GLU: nn.functional.glu
Softmin: nn.functional.softmin
Softmax Softmax2d: nn.functional.softmax
LogSoftmax: nn.functional.log_softmax
MultiheadAttention: nn.functional.multi_head_attention_forward nn.functional.scaled_dot_product_attention
BatchNorm1d BatchNorm2d BatchNorm3d SyncBatchNorm: nn.functional.batch_norm
InstanceNorm1d InstanceNorm2d InstanceNorm3d: nn.functional.instance_norm
GroupNorm: nn.functional.group_norm
LayerNorm: nn.functional.layer_norm
LocalResponseNorm CrossMapLRN2d: nn.functional.local_response_norm
RMSNorm: nn.functional.rms_norm
RNN RNNBase: rnn_tanh rnn_relu
LSTM: lstm
GRU: gru
RNNCell RNNCellBase: rnn_tanh_cell rnn_relu_cell
LSTMCell: lstm_cell
GRUCell: gru_cell
Dropout: nn.functional.dropout
Dropout1d: nn.functional.dropout1d
Dropout2d: nn.functional.dropout2d
Dropout3d: nn.functional.dropout3d
AlphaDropout: nn.functional.alpha_dropout
FeatureAlphaDropout: nn.functional.feature_alpha_dropout
Embedding: nn.functional.embedding
EmbeddingBag: nn.functional.embedding_bag
CosineSimilarity: nn.functional.cosine_similarity
PairwiseDistance: nn.functional.pairwise_distance
L1Loss: nn.functional.l1_loss
MSELoss: nn.functional.mse_loss
CrossEntropyLoss: nn.functional.cross_entropy
LinearCrossEntropyLoss LinearCrossEntropyOptions: nn.functional.linear_cross_entropy
CTCLoss: nn.functional.ctc_loss
NLLLoss NLLLoss2d: nn.functional.nll_loss
PoissonNLLLoss: nn.functional.poisson_nll_loss
GaussianNLLLoss: nn.functional.gaussian_nll_loss
KLDivLoss: nn.functional.kl_div
BCELoss: nn.functional.binary_cross_entropy
BCEWithLogitsLoss: nn.functional.binary_cross_entropy_with_logits
MarginRankingLoss: nn.functional.margin_ranking_loss
HingeEmbeddingLoss: nn.functional.hinge_embedding_loss
MultiLabelMarginLoss: nn.functional.multilabel_margin_loss
HuberLoss: nn.functional.huber_loss
SmoothL1Loss: nn.functional.smooth_l1_loss
SoftMarginLoss: nn.functional.soft_margin_loss
MultiLabelSoftMarginLoss: nn.functional.multilabel_soft_margin_loss
CosineEmbeddingLoss: nn.functional.cosine_embedding_loss
MultiMarginLoss: nn.functional.multi_margin_loss
TripletMarginLoss: nn.functional.triplet_margin_loss
TripletMarginWithDistanceLoss: nn.functional.triplet_margin_with_distance_loss
PixelShuffle: nn.functional.pixel_shuffle
PixelUnshuffle: nn.functional.pixel_unshuffle
Upsample UpsamplingNearest2d UpsamplingBilinear2d: nn.functional.interpolate
ChannelShuffle: nn.functional.channel_shuffle
LazyLinear: nn.functional.linear
LazyConv1d LazyConv2d LazyConv3d: nn.functional.conv2d
LazyConvTranspose1d LazyConvTranspose2d LazyConvTranspose3d: nn.functional.conv_transpose2d
LazyBatchNorm1d LazyBatchNorm2d LazyBatchNorm3d: nn.functional.batch_norm
LazyInstanceNorm1d LazyInstanceNorm2d LazyInstanceNorm3d: nn.functional.instance_norm
""")

OPTIMIZERS = _pairs("""
Adadelta: optim.adadelta_
Adafactor: optim.adafactor_
Adagrad: optim.adagrad_
Adam: optim.adam_
AdamW: optim.adamw_
Adamax: optim.adamax_
ASGD: optim.asgd_
LBFGS: optim.lbfgs_
Muon: optim.muon_
NAdam: optim.nadam_
Optimizer step optimizer.step: optim.sgd_ optim.adam_
RAdam: optim.radam_
RMSprop: optim.rmsprop_
Rprop: optim.rprop_
SGD SparseAdam: optim.sgd_
""")

# ---------------------------------------------------------------- other names for what there is

OTHERS = _pairs("""
array from_list ndarray: tensor
expand_dims newaxis: unsqueeze
astype cast: to
copy deepcopy __deepcopy__: clone
power **: pow
plus + __add__ __radd__: add
__iadd__ +=: add_
minus - __sub__ __rsub__: sub
__isub__ -=: sub_
times * __mul__ __rmul__: mul
__imul__ *=: mul_
/ __truediv__ __rtruediv__ __rdiv__: div
__itruediv__ __idiv__: div_
// __floordiv__ __rfloordiv__: floor_divide
__ifloordiv__: floor_divide_
% __mod__ __rmod__ mod: remainder
__imod__: remainder_
@ __matmul__ __rmatmul__ matrix_multiply: matmul
__pow__ __rpow__: pow
__ipow__: pow_
& __and__ __rand__: bitwise_and
__iand__: bitwise_and_
| __or__ __ror__: bitwise_or
__ior__: bitwise_or_
^ __xor__ __rxor__: bitwise_xor
__ixor__: bitwise_xor_
~ __invert__: bitwise_not
<< __lshift__ __rlshift__: bitwise_left_shift
__ilshift__: bitwise_left_shift_
>> __rshift__ __rrshift__: bitwise_right_shift
__irshift__: bitwise_right_shift_
== __eq__: eq
!= __ne__: ne
< __lt__: lt
<= __le__: le
> __gt__: gt
>= __ge__: ge
__neg__: neg
__pos__: positive
__abs__: abs
len __len__ count: size numel
__getitem__ slice loc iloc index x[0]: getitem
__setitem__ setitem: setitem_
__iter__: unbind
__reversed__ reverse: flip
__contains__: eq any
__bool__ bool(): is_nonzero
__float__ __int__ __index__ __complex__: item
random.rand random.random: rand
random.randn random.normal: randn
random.randint: randint
random.shuffle random.permutation shuffle: randperm
random.manual_seed random.seed set_seed: manual_seed
random.get_rng_state: get_rng_state
random.set_rng_state: set_rng_state
random.initial_seed: initial_seed
dense: nn.functional.linear
mse: nn.functional.mse_loss
bce: nn.functional.binary_cross_entropy
mae l1: nn.functional.l1_loss
dot_product: dot inner
nll: nn.functional.nll_loss
kl: nn.functional.kl_div
swish: nn.functional.silu
attention: nn.functional.scaled_dot_product_attention
inv inverse_matrix: inverse linalg.inv
solve: linalg.solve
eig: linalg.eig
eigh symeig: linalg.eigh
lstsq: linalg.lstsq
matrix_rank: linalg.matrix_rank
dsmm hsmm spmm smm: mm
saddmm sspaddmm: addmm
hspmm: mm
chalf: cfloat
data: detach
name: grad_fn
resize: resize_
resize_as: resize_as_
adaptive_max_pool2d: nn.functional.adaptive_max_pool2d
native_norm: norm
miopen_convolution cudnn_convolution mkldnn_convolution: convolution
clip_grad_norm nn.utils.clip_grad_norm: nn.utils.clip_grad_norm_
detach_and_clone: detach clone
to_list: tolist
norm_l2: linalg.vector_norm
transpose2d: t
sum_all: sum
nn.init.constant nn.init.normal nn.init.uniform nn.init.eye nn.init.dirac: nn.init.constant_ nn.init.normal_
nn.init.sparse nn.init.orthogonal: nn.init.sparse_ nn.init.orthogonal_
nn.init.kaiming_normal nn.init.kaiming_uniform: nn.init.kaiming_normal_ nn.init.kaiming_uniform_
nn.init.xavier_normal nn.init.xavier_uniform: nn.init.xavier_normal_ nn.init.xavier_uniform_
""")

FUNCTIONS = _pairs("""
func.grad func.grad_and_value: autograd.grad
func.vjp func.linearize jvp vjp: autograd.functional.vjp autograd.functional.jvp
func.jvp: autograd.functional.jvp
func.jacrev func.jacfwd jacobian jacrev jacfwd: autograd.functional.jacobian
func.hessian hessian: autograd.functional.hessian
gradcheck: autograd.gradcheck
gradgradcheck: autograd.gradgradcheck
hvp: autograd.functional.hvp
vhp: autograd.functional.vhp
""")

# ---------------------------------------------------------------- groups that share a reason

# Names ending in `.` stand for all that begin with them; those ending in `*` as well.
GROUPS: Mapping[str, str] = {
    "no-container": (
        "Module Sequential ModuleList ModuleDict ParameterList ParameterDict Container BufferDict DataParallel "
        "Transformer TransformerEncoder TransformerDecoder TransformerEncoderLayer TransformerDecoderLayer "
        "AdaptiveLogSoftmaxWithLoss forward train eval state_dict load_state_dict parameters modules children "
        "func.functional_call func.stack_module_state func.replace_all_batch_norm_modules_ nn.utils.skip_init "
        "nn.utils.fuse_conv_bn_eval nn.utils.fuse_linear_bn_eval nn.utils.weight_norm "
        "nn.utils.remove_weight_norm nn.utils.spectral_norm nn.utils.remove_spectral_norm nn.utils.parametrize. "
        "nn.utils.parametrizations. nn.utils.prune. nn.utils.convert_conv2d_weight_memory_format "
        "nn.utils.convert_conv3d_weight_memory_format nn.utils.rnn.PackedSequence model"
    ),
    "no-parameter": ("Parameter Buffer Variable autograd.Variable UninitializedParameter UninitializedBuffer requires"),
    "no-block": (
        "no_grad enable_grad inference_mode autograd.no_grad autograd.enable_grad autograd.inference_mode "
        "is_inference_mode_enabled is_inference set_grad autograd.set_grad_enabled"
    ),
    "no-anomaly-block": ("autograd.detect_anomaly detect_anomaly set_anomaly_enabled is_anomaly_check_nan_enabled"),
    "no-clearing": ("zero_grad optimizer.zero_grad clear_grad grad_zero"),
    "no-gradient-name": ("grad"),
    "no-vmap": ("vmap func.vmap func.functionalize map apply vectorize apply_along_axis"),
    "no-functions": (
        "apply_ map_ map2_ autograd.Function autograd.NestedIOFunction cond while_loop scan wait fork compile "
        "jit. fx. dynamo. export. library. script trace_module ScriptModule ScriptFunction CompilationUnit"
    ),
    "no-hooks": ("register_hook register_post_accumulate_grad_hook register_forward_hook hooks reinforce"),
    "no-sparse": (
        "sparse. to_sparse* sparse_* sparse_mask is_sparse_csr is_coalesced coalesce indices values dense_dim "
        "sparse_dim crow_indices col_indices ccol_indices row_indices crow_indices_copy col_indices_copy "
        "ccol_indices_copy row_indices_copy indices_copy values_copy resize_as_sparse_ sparse_resize_ "
        "sparse_resize_and_clear_ masked. to_mkldnn is_mkldnn"
    ),
    "no-nested": ("nested. to_padded_tensor"),
    "no-quantized": (
        "quantize_* quantized_* quantized. q_* qscheme int_repr dequantize empty_quantized fbgemm_* "
        "choose_qparams_optimized fused_moving_avg_obs_fake_quant ao. quantization. nn.functional.scaled_mm "
        "nn.functional.scaled_grouped_mm"
    ),
    "no-such-dtype": ("hash_tensor view_as_complex32 complex32 uint16 uint32 uint64 float8_e4m3fn float8_e5m2"),
    "no-memory": (
        "numpy __array__ data_ptr const_data_ptr storage untyped_storage storage_type share_memory_ is_shared "
        "pin_memory is_pinned record_stream to_dlpack __dlpack__ __cuda_array_interface__ ipu xpu mtia maia hpu "
        "is_ipu is_xpu is_mps is_mtia is_maia is_vulkan is_xla is_distributed module_load as_subclass new"
    ),
    "no-upload": ("from_numpy frombuffer from_file from_dlpack load_csv read_csv imread open"),
    "no-files": ("save load savetxt loadtxt saving hub. serialization."),
    "no-printing": ("print repr str display show plot __repr__ __str__ __format__ pprint"),
    "no-setting": (
        "set_num_threads get_num_threads set_num_interop_threads get_num_interop_threads "
        "set_float32_matmul_precision get_float32_matmul_precision use_deterministic_algorithms "
        "are_deterministic_algorithms_enabled is_deterministic_algorithms_warn_only_enabled "
        "set_deterministic_debug_mode get_deterministic_debug_mode set_flush_denormal set_warn_always "
        "is_warn_always_enabled backends. init_num_threads compiled_with_cxx11_abi get_file_path "
        "prepare_multiprocessing_environment multiprocessing. distributed. utils. profiler. nn.attention."
    ),
    "no-default-device": ("set_default_device set_default_tensor_type cuda.set_device cuda.device cuda.device_of"),
    "no-autocast": (
        "autocast amp. GradScaler autocast_* set_autocast_* get_autocast_* is_autocast_* clear_autocast_cache"
    ),
    "no-generator": (
        "Generator random.fork_rng cuda.get_rng_state cuda.set_rng_state cuda.manual_seed cuda.manual_seed_all "
        "cuda.seed cuda.seed_all cuda.initial_seed thread_safe_generator generator"
    ),
    "no-data-loader": ("DataLoader Dataset TensorDataset data.DataLoader utils.data.DataLoader dataset random_split"),
    "no-cuda-call": ("cuda. Stream Event"),
    "no-scheduler": (
        "optim.lr_scheduler. lr_scheduler. StepLR MultiStepLR ExponentialLR CosineAnnealingLR ReduceLROnPlateau "
        "OneCycleLR CyclicLR LambdaLR LinearLR ConstantLR PolynomialLR MultiplicativeLR SequentialLR "
        "ChainedScheduler CosineAnnealingWarmRestarts LRScheduler"
    ),
    "no-class": (
        "Size dtype.type memory_format is_tensor is_storage typename Storage UntypedStorage TypedStorage "
        "autograd.graph. distributions. get_device_module isinstance type()"
    ),
    "no-inside": (
        "cudnn_* miopen_* mkldnn_* batch_norm_stats batch_norm_elemt batch_norm_backward_elemt "
        "batch_norm_backward_reduce batch_norm_gather_stats batch_norm_gather_stats_with_counts "
        "batch_norm_update_stats embedding_bag slice_inverse sym_* parse_* import_ir_module* "
        "merge_type_from_type_comment unify_type_list output_nr grad_dtype volatile is_vulkan_available "
        "overrides."
    ),
}

_PREFIXES = ("torch.", "Tensor.", "F.", "np.", "numpy.", "x.", "nn.functional.", "functional.")
_PARENTS = ("nn.", "optim.", "func.", "autograd.functional.", "autograd.", "nn.utils.", "linalg.", "lr_scheduler.")


def plain(name: str) -> str:
    """A name as it would be here: without `torch.`, `F.`, a tensor before the dot, or brackets behind it."""
    name = name.strip().removeprefix(".")
    if name.endswith(")") and "(" in name:
        name = name[: name.index("(")]
    while True:
        for prefix in _PREFIXES:
            if name.startswith(prefix) and len(name) > len(prefix):
                name = name[len(prefix) :]
                break
        else:
            return name


@cache
def _groups() -> tuple[dict[str, str], tuple[tuple[str, str], ...]]:
    """({name: group}, ((beginning, group), ...))."""
    names: dict[str, str] = {}
    beginnings: list[tuple[str, str]] = []
    for group, text in GROUPS.items():
        for name in text.split():
            if name[-1] in ".*":
                beginnings.append((name.rstrip("*"), group))
            else:
                names[name] = group
    return names, tuple(beginnings)


def _group(name: str) -> str | None:
    names, beginnings = _groups()
    return names.get(name) or next((group for start, group in beginnings if name.startswith(start)), None)


def instead(name: str) -> Hint | None:
    """What stands in the place of a name that is no operation; None where it is not among the known ones."""
    tail = plain(name)
    last = tail.rpartition(".")[2]
    for each in dict.fromkeys((name, tail, last) if tail.startswith(_PARENTS) else (name, tail)):
        if each in MODULES:
            return Hint("no-module", near=list(MODULES[each]))
        if each in OPTIMIZERS:
            return Hint("no-optimizer", near=list(OPTIMIZERS[each]))
        if each in FUNCTIONS:
            return Hint("no-function-here", near=list(FUNCTIONS[each]))
        if each in OTHERS:
            return Hint("near-names", near=list(OTHERS[each]))
        group = _group(each)
        if group is not None:
            return Hint(group)
    return None


# ---------------------------------------------------------------- misspelt names

_KINDS = ("", "nn.functional.", "linalg.", "special.", "fft.", "nn.init.", "nn.utils.", "optim.", "signal.windows.")


def near(name: str, public: Collection[str]) -> list[str]:
    """The operations that a name may have been meant for, the likeliest first, at most four."""
    tail = plain(name)
    lower = tail.lower().rpartition(".")[2] if "." in tail else tail.lower()
    exact = [*(kind + tail for kind in _KINDS), *(kind + lower for kind in _KINDS), f"{tail}_", tail.rstrip("_")]
    found = [each for each in dict.fromkeys(exact) if each in public and each != name]
    if found and (found[0] == tail or len(lower) < 3):
        return found[:4]
    found += [each for each in get_close_matches(tail, public, 3, 0.6) if each not in found and _alike(tail, each)]
    ends: dict[str, list[str]] = {}
    for each in public:
        ends.setdefault(each.rpartition(".")[2], []).append(each)
    for end in get_close_matches(lower, ends, 3, 0.72):
        if end not in {each.rpartition(".")[2] for each in found}:
            found += ends[end][:2]
    return found[:4]


def _alike(tail: str, other: str) -> bool:
    """Whether two names are alike beyond what stands before their last dot."""
    return SequenceMatcher(None, tail.rpartition(".")[2], other.rpartition(".")[2]).ratio() >= 0.55
