"""Korean: the sentences of hints and notes; see en.py for their form.

Facts are followed by nouns or commas rather than by particles, whose form depends on the sound before them.
"""

from __future__ import annotations

from collections.abc import Mapping

HINTS: Mapping[str, str] = {
    # -------------------------------------------------------- names and routes
    "near-names": "혹시 이것을 찾으셨나요? {near}",
    "known-names": "쓸 수 있는 이름: {names}",
    "takes-none": "여기서는 아무것도 받지 않습니다",
    "list-ops": "GET /v1/ops 요청으로 모든 연산을 볼 수 있습니다",
    "route-near": "혹시 {method} {path} 요청을 하려고 하셨나요?",
    "route-list": "호출 방법은 /docs에, 연산 목록은 /v1/ops에 있습니다",
    "methods": "받는 메서드: {methods}",
    "near-parameter": '혹시 "{near}" 인자를 쓰려고 하셨나요?',
    "parameters": "이 연산의 인자: {params}",
    "namesake": "{param} 인자는 이름이 같은 다른 연산 {other}에 있습니다",
    "near-field": '혹시 "{near}" 필드를 쓰려고 하셨나요?',
    "fields": "쓸 수 있는 필드: {fields}",
    "choice": '혹시 "{near}" 값을 쓰려고 하셨나요?',
    "choices": "다음 중 하나입니다: {choices}",
    "argument-type": "{param} 인자가 받는 값: {type}",
    "missing-parameter": (
        "{op} 연산에는 {param} 인자({type})가 필요합니다. GET /v1/ops/{op} 요청으로 설명을 볼 수 있습니다"
    ),
    "list-tensors": "GET /v1/tensors 요청으로 어떤 텐서가 있는지 볼 수 있습니다",
    "name-rule": "이름에는 영문자, 숫자, _, ., -만 쓸 수 있습니다. 예: w, h_1, 0.weight",
    "name-taken": "다른 이름을 고르세요. If-None-Match 없이 보내면 이제부터 {name} 이름은 새 텐서를 가리킵니다",
    "out-count": "이름을 {count}개 주세요",
    "read-again": "GET /v1/tensors/{name} 요청으로 다시 읽어 보고, 바꿀지 새로 정하세요",
    "make-state": "optim.adam_state 같은 연산이 상태를 만듭니다. 이름을 붙여 두고 쓰세요",
    "limit": "이 서버의 {name} 한도는 {limit}이며, 서버를 시작할 때 정해집니다",
    # -------------------------------------------------------- names of PyTorch that are no operations
    "no-module": "모듈은 객체이지만 여기서 가중치는 직접 만든 텐서이고, 모듈이 하는 일은 연산입니다: {near}",
    "no-optimizer": "옵티마이저는 상태를 스스로 지니지만 여기서는 params, grads, state를 넘깁니다: {near}",
    "no-function-here": '여기서 함수는 "func"로 주는 프로그램입니다. 레퍼런스에서 찾아보세요: {near}',
    "no-container": "여기서 층은 프로그램의 단계이고 가중치는 직접 만든 텐서입니다: POST /v1/programs",
    "no-parameter": (
        '어떤 텐서든 기울기를 요구할 수 있습니다: {{"data": [1.5], "requires_grad": true}} 또는 requires_grad_'
    ),
    "no-block": 'with 블록 대신 필드를 씁니다: 연산, 단계, 프로그램에 "no_grad": true',
    "no-anomaly-block": (
        'with 블록 대신 필드를 씁니다: 프로그램에 "detect_anomaly": true. 모두에 적용하려면 autograd.set_detect_anomaly'
    ),
    "no-clearing": (
        'PATCH로 {{"grad": null}} 을 보내면 기울기가 지워집니다. autograd.grad 연산은 기울기를 쌓지 않습니다'
    ),
    "no-gradient-name": (
        "텐서 자리에 x.grad라고 쓰거나 GET /v1/tensors/{{id}}/grad 요청을 보내세요. autograd.grad 연산은 "
        "저장하지 않고 기울기를 구합니다"
    ),
    "no-vmap": (
        "vmap은 없습니다. 배치를 맨 앞 차원으로 두세요. 연산은 브로드캐스트하고 matmul, bmm, einsum은 배치마다 곱합니다"
    ),
    "no-functions": (
        '서버에서는 Python이 실행되지 않습니다. 프로그램은 단계로 이루어지고, "repeat" 는 단계를 '
        "되풀이하며, where는 두 결과 가운데 고릅니다"
    ),
    "no-hooks": (
        "훅은 없습니다. 프로그램의 단계는 모든 텐서를 볼 수 있고, retain_grad는 리프가 아닌 텐서의 기울기를 남깁니다"
    ),
    "no-sparse": "여기 텐서는 모두 밀집 텐서입니다. zeros로 만들고 index_put_, scatter_로 값을 채우세요",
    "no-nested": (
        "여기 텐서는 차원마다 길이가 하나입니다. nn.utils.rnn.pad_sequence 연산은 채우고, "
        "nn.utils.rnn.pack_sequence 연산은 묶습니다"
    ),
    "no-quantized": "양자화 dtype과 float8은 없습니다. fake_quantize_per_tensor_affine은 양자화된 값을 실수로 줍니다",
    "no-such-dtype": "GET /v1/info 목록에 없는 dtype이 필요한 연산입니다",
    "no-memory": (
        "서버의 메모리에는 밖에서 쓸 주소가 없습니다. GET /v1/tensors/{{id}} 요청으로 값을 읽고, 바이트로는 "
        "Accept: application/x-npy"
    ),
    "no-upload": (
        "POST /v1/tensors 요청은 숫자와 바이트 배열을 받습니다: application/x-npy, application/octet-stream, "
        "text/csv, image/png"
    ),
    "no-files": (
        "GET /v1/sessions/{{id}}/snapshot 요청은 세션 전체를 파일 하나로 주고, 그것을 PUT 하면 되살립니다. "
        "POST /v1/tensors 요청은 npy와 safetensors를 받습니다"
    ),
    "no-printing": "GET /v1/tensors/{{id}} 요청에 ?as=text 를 붙이면 print와 같은 글자를 줍니다",
    "no-setting": "서버를 시작할 때 서버가 정합니다",
    "no-default-device": (
        "장치와 기본 dtype은 세션을 만들 때 정합니다: POST /v1/sessions. 기본 dtype은 set_default_dtype으로 바꿉니다"
    ),
    "no-autocast": '다른 dtype으로 계산할 것은 직접 변환하세요: to 연산에 "dtype": "bfloat16"',
    "no-generator": (
        "세션에는 난수 생성기가 하나 있습니다. manual_seed로 시드를 정하고 get_rng_state, set_rng_state로 "
        "상태를 읽고 되돌립니다"
    ),
    "no-data-loader": "배치는 직접 보냅니다. 호출마다 보내거나, 텐서 하나로 두고 index_select로 배치의 행을 꺼내세요",
    "no-cuda-call": (
        "GET /v1/devices 요청이 장치를, /v1/sessions/{{id}}/memory가 쓰는 메모리를 알려 줍니다. 응답이 오면 "
        "계산은 끝난 것입니다"
    ),
    "no-scheduler": '스케줄은 단계마다의 수입니다. 옵티마이저 단계의 "lr" 로 주세요',
    "no-class": "PyTorch의 Python 클래스는 HTTP에서는 뜻이 없습니다",
    "no-inside": "PyTorch 내부 동작의 일부입니다. GET /v1/ops 요청으로 모든 연산을 볼 수 있습니다",
    # -------------------------------------------------------- values
    "ragged": "같은 깊이의 리스트는 길이가 모두 같아야 합니다. {param} 안에서 길이가 처음으로 달라지는 곳: {path}",
    "data-words": (
        '숫자는 따옴표 없이 쓰세요("1"이 아니라 1). '
        '숫자 대신 쓸 수 있는 문자열은 "NaN", "Infinity", "-Infinity"뿐입니다'
    ),
    "complex-pairs": "복소수는 [실수부, 허수부]로 쓰므로, 복소수 데이터에는 길이가 2인 단계가 하나 더 있어야 합니다",
    "tensor-data": '텐서를 직접 쓸 때는 data가 있는 객체로 쓰세요: {{"data": [[1.0, 2.0]]}}',
    "slice": '슬라이스는 "1:", ":-1", "::2" 같은 문자열입니다',
    # -------------------------------------------------------- what a beginner meets besides
    "give-field": '이 필드를 주세요: {{"{name}": ...}}',
    "data-shape": "shape의 크기를 모두 곱하면 값의 개수인 {count}이어야 합니다. shape를 주지 않으면 {shape}입니다",
    "one-unknown": "크기 하나만 -1로 둘 수 있습니다. 그 크기는 나머지로 정해집니다",
    "size-range": "크기는 0 이상의 정수입니다",
    "step-sign": '{start}에서 {end}까지는 반대 방향입니다. 부호가 {sign}인 "step"을 주세요',
    "tensor-list": '리스트에 넣어 주세요: "{param}": ["{name}"]',
    "collect-one": (
        "collect는 한 번 돌 때마다 sum, mean, 손실 같은 숫자 하나를 모읍니다. 텐서 전체는 마지막에 return으로 받으세요"
    ),
    "logical-instead": (
        "참과 거짓에는 따로 쓰는 연산이 있습니다: {call} :: 참과 거짓에는 따로 쓰는 연산이 있습니다: {name}"
    ),
    "cast-bool": '참과 거짓으로 계산하려면 먼저 숫자로 바꾸세요: to 연산에 "dtype": "int64"',
    "matmul-any": (
        "mm에는 행렬 두 개를 주어야 합니다. matmul은 벡터와 쌓인 행렬도 받습니다: {call} :: mm에는 행렬 "
        "두 개를 주어야 합니다. matmul은 벡터와 쌓인 행렬도 받습니다"
    ),
    "not-sorted": '"enforce_sorted": false로 하면 먼저 정렬하고, 되돌리는 순서를 unsorted_indices로 줍니다',
    "some-tensors": '적어도 하나는 주세요. 예: "tensors": ["x", "y"]',
    "one-target-each": "입력의 행마다 정답이 하나씩, 모두 {count}개 있어야 합니다",
    "more-classes": '클래스는 0부터 세므로 적어도 {count}개입니다: "num_classes": {count}',
    "every-dim": "dims에는 모든 차원을 한 번씩 새 순서로 쓰세요. {order} 순서라면 아무것도 바뀌지 않습니다",
    "index-count": (
        "인덱스 항목은 차원마다 하나씩, 여기서는 많아야 {ndim}개입니다. null은 차원을 더할 뿐 세지 않습니다"
    ),
    "k-range": "여기서 k는 0부터 그 차원의 크기인 {high}까지입니다",
    "square": "정사각행렬에만 쓸 수 있는데 {rows}행 {columns}열입니다. pinverse는 모든 모양의 행렬을 받습니다",
    "gradient-each": "기울기를 params와 같은 순서로 {count}개 주세요. null이면 그 매개변수는 그대로 둡니다",
    "rate-range": "{name}에는 0 이상의 수를 주세요",
    "field-once": "필드는 한 번씩만 보내세요. 값이 여럿이면 리스트로 쓰세요: -d size=[2,3]",
    "json-comma": "JSON에서 쉼표는 값과 값 사이에만 쓰고, 마지막 값 뒤에는 쓰지 않습니다",
    "json-key": '이름은 큰따옴표로 감싸세요: {{"input": "x"}}. 셸이 따옴표를 없앤다면 필드로 보내세요: -d input=x',
    "name-id": (
        "텐서에는 t1, t2, ... 꼴의 id가 저절로 붙으므로 {name} 이름은 언젠가 id가 될 수 있습니다. x{name} "
        "같은 이름은 됩니다"
    ),
    "name-json": "인자에 쓴 {name} 글자는 값으로 읽혀서 텐서를 가리킬 수 없습니다. x{name} 같은 이름은 됩니다",
    "name-grad": (
        "{name} 이름은 언제나 {base}의 기울기를 뜻하므로 다른 텐서에 줄 수 없습니다. {base}_grad 같은 이름은 됩니다"
    ),
    "index-items": (
        '인덱스에는 정수(1.0이 아니라 1), "1:" 같은 슬라이스, "...", null, 그리고 int64나 bool인 텐서나 '
        "리스트를 쓸 수 있습니다"
    ),
    # -------------------------------------------------------- dtypes and devices
    "cast-one": (
        "{param} 인자의 dtype을 먼저 바꾸세요: {call}. 새 텐서가 만들어지므로 그 id를 쓰거나, "
        '"out_name"을 더해 원래 이름을 새 텐서에 주세요'
    ),
    "cast-input": (
        "이 텐서는 {have} 타입입니다. 먼저 부동소수점 dtype으로 바꾸세요: {call} :: "
        "값이 {have} 타입입니다. 부동소수점 값을 주세요(1 대신 1.0)"
    ),
    "cast-float": (
        "이 텐서는 {have} 타입입니다. 먼저 부동소수점 dtype으로 바꾸세요: {call} :: "
        "값이 {have} 타입입니다. 부동소수점 값을 주세요(1 대신 1.0)"
    ),
    "mean-dtype": (
        "{have} 값의 평균은 {have} 타입이 아닙니다. 어떤 dtype으로 계산할지 정하세요: {call} :: "
        '{have} 값의 평균은 {have} 타입이 아닙니다. 어떤 dtype으로 계산할지 정하세요: "dtype": "float32"'
    ),
    "cast-index": (
        "{param} 인자는 int64 정수여야 하는데 {have} 타입입니다. {call} 호출이 정수로 바꾼 새 텐서를 만드니 "
        "그 id를 쓰세요 :: {param} 인자는 int64 정수여야 하는데(JSON에서는 1.0이 아니라 1) {have} 타입입니다"
    ),
    "bool-mask": '비교 연산(gt, eq, ...)이 bool 텐서를 만들고, to 연산에 "dtype": "bool"을 줘도 됩니다',
    "inplace-dtype": (
        "결과는 {want} 타입이라 {have} 텐서에 담을 수 없습니다. 이름 끝에 밑줄이 없는 연산을 쓰거나, "
        "텐서의 dtype을 먼저 바꾸세요: {call} :: 결과는 {want} 타입이라 {have} 텐서에 담을 수 없습니다. "
        "이름 끝에 밑줄이 없는 연산을 쓰세요"
    ),
    "give-dtype": 'dtype도 함께 주세요: "dtype": "{dtype}" (JSON에서 1은 정수, 1.0은 부동소수점 수입니다)',
    "move-device": (
        "먼저 둘 중 하나를 옮기세요: {call} 호출이 그 장치에 새 텐서를 만드니 그 id를 쓰세요 :: "
        "먼저 둘 중 하나를 to 연산으로 옮기고, 새 텐서의 id를 쓰세요"
    ),
    "device-here": "이 서버에 있는 장치: {devices}",
    "no-cuda": (
        "이 서버에 있는 장치: {devices}. NVIDIA GPU가 있는 컴퓨터에서는 make serve CUDA=12로 켜고, "
        "연습하려면 --workers practice-cuda로 흉내 낸 GPU가 있는 서버를 켜세요"
    ),
    "device-elsewhere": (
        "이 세션에는 텐서가 있어서 다른 워커로 옮길 수 없습니다. 그 장치에 새 세션을 만드세요: "
        'POST /v1/sessions {{"device": "{device}"}}'
    ),
    "float-exponent": "둘 중 하나를 부동소수점 수로 주세요. 2.0 ** -1은 0.5이지만, 정수로는 나타낼 수 없습니다",
    "integer-zero-division": "정수에는 무한대가 없습니다. 부동소수점 수로 나누거나, 0으로 나누지 않게 하세요",
    # -------------------------------------------------------- shapes
    "broadcast": (
        "브로드캐스팅하려면 마지막 차원부터 견주었을 때 크기가 같거나 한쪽이 1이어야 합니다. {a}, {b} 두 shape는 차원 "
        "{dim}에서 다릅니다. 둘 중 하나에 unsqueeze, reshape, transpose를 써 보세요"
    ),
    "matmul-instead": (
        "bmm에는 행렬을 쌓은 3차원 텐서 두 개를 주어야 합니다. "
        "matmul은 행렬 하나를 쌓인 행렬 모두에 곱해 줍니다: {call} :: "
        "bmm에는 행렬을 쌓은 3차원 텐서 두 개를 주어야 합니다. "
        "matmul은 행렬 하나를 쌓인 행렬 모두에 곱해 줍니다"
    ),
    "transpose-two": (
        "t는 행렬에만 쓸 수 있습니다. 서로 바꿀 두 차원을 정하세요: {call} :: "
        "t는 행렬에만 쓸 수 있습니다. transpose 연산에 서로 바꿀 두 차원을 주세요"
    ),
    "einsum-sizes": (
        "{label} 글자가 가리키는 차원은 크기가 같아야 하는데 지금은 {sizes}입니다. "
        "다른 글자를 쓰거나 한쪽을 transpose하세요"
    ),
    "inner-sizes": "{a}의 마지막 크기는 {b}의 뒤에서 두 번째 크기와 같아야 합니다. 둘 중 하나를 transpose해 보세요",
    "dim-range": "여기서 dim은 {low}부터 {high}까지입니다. 음수는 뒤에서부터 셉니다",
    "index-range": "여기서 인덱스는 {low}부터 {high}까지입니다. 처음으로 벗어난 인덱스: {index}",
    "flip-instead": "간격(step)은 1 이상이어야 합니다. 차원을 뒤집을 때는 flip 연산을 쓰세요",
    "mask-shape": (
        "마스크의 크기는 가리키는 차원들의 크기와 같아야 하는데, 마스크 {mask}, 텐서 {shape}라서 맞지 않습니다"
    ),
    "cat-sizes": "차원 {dim} 말고는 크기가 모두 같아야 합니다. 지금 shape: {shapes}",
    "stack-sizes": (
        "stack은 shape가 같은 텐서만 받습니다. 지금 shape: {shapes}. 이미 있는 차원으로 이으려면 cat을 쓰세요"
    ),
    "stack-instead": "0차원 텐서를 1차원 텐서 하나로 모으려면 stack 연산을 쓰세요",
    "split-sizes": "나눌 크기를 모두 더하면 차원 {dim}의 크기인 {size}이어야 합니다",
    "conv-rank": "입력은 배치, 채널, 공간 {dims}차원 순서입니다. 지금 입력의 크기: {input}",
    "conv-channels": (
        "입력의 차원 1은 채널입니다. 지금은 {have}인데, weight와 groups에 맞으려면 {want}이어야 합니다. "
        "채널이 마지막 차원에 있다면 permute로 옮기세요"
    ),
    "conv-kernel": "커널이 덮는 크기는 {kernel}, 패딩한 입력은 {input}입니다. 패딩을 더하거나 더 작은 커널을 쓰세요",
    "view-size": "shape의 크기를 모두 곱하면 원소 수인 {total}이어야 합니다. 크기 하나는 -1로 둘 수 있습니다",
    "use-reshape": '원소를 복사해야만 되는 모양입니다. reshape 연산을 쓰세요: "shape": {shape}',
    "expand": "expand는 크기가 1인 차원만 늘릴 수 있습니다. repeat 연산은 어떤 차원이든 복사해 늘립니다",
    "use-logits": (
        "sigmoid의 결과 같은 확률을 주거나, 로짓을 그대로 nn.functional.binary_cross_entropy_with_logits 연산에 주세요"
    ),
    # -------------------------------------------------------- matrices
    "singular": "행들이 서로 독립이 아니어서 역행렬이 없는 행렬입니다. linalg.pinv가 가장 가까운 유사역행렬을 줍니다",
    "positive-definite": (
        "고윳값이 모두 양수인 대칭행렬만 이렇게 분해할 수 있습니다. 예: A @ A.T에 대각 성분을 조금 더한 행렬"
    ),
    "not-finite": "NaN이나 무한대가 들어 있습니다. isfinite 연산으로 어디에 있는지 찾을 수 있습니다",
    "pivot": "true로 두세요. 행 교환은 정밀도를 지키기 위한 것이며 LAPACK에는 다른 방법이 없습니다",
    "pool-size": "창이 덮는 크기는 {kernel}, 입력은 {input}입니다. 더 작은 창을 쓰거나 패딩을 더하세요",
    "index-first": "shape가 {shape}입니다. 먼저 원소 하나를 고르거나(getitem) 하나로 합치세요(sum, mean)",
    # -------------------------------------------------------- autograd
    "backward-scalar": (
        'shape가 {shape}입니다. 먼저 숫자 하나로 합치거나({call}), 같은 shape의 "gradient"를 주세요 :: '
        'shape가 {shape}입니다. 먼저 숫자 하나로 합치거나, 같은 shape의 "gradient"를 주세요'
    ),
    "backward-real": '기울기(gradient)가 저절로 정해지는 것은 실수인 부동소수점 수뿐입니다. "gradient"를 주세요',
    "gradient-shape": "기울기(gradient)의 shape는 대상 텐서의 shape와 같아야 합니다. 여기서는 {shape}",
    "no-grad-yet": (
        "{name} 텐서가 requires_grad이고 역전파(backward)가 거기까지 닿은 뒤에 기울기가 생깁니다: "
        "POST /v1/tensors/{{id}}/backward"
    ),
    "phases": "손실이 위상에 의존하지 않게 하세요. 예: 고윳값, 특잇값, V @ V^H 같은 곱",
    "function": (
        '이렇게 쓰세요: {{"inputs": ["x"], "steps": [{{"op": "exp", "args": {{"input": "x"}}, "out": "y"}}], '
        '"return": "y"}}'
    ),
    "strict": "strict가 아니면, 입력에 의존하지 않는 것의 도함수는 0입니다",
    "give-v": "위에서 말한 shape의 v를 주세요",
    "double-precision": 'float64로 비교하세요: {{"data": …, "dtype": "float64", "requires_grad": true}}',
    "contiguous": "먼저 자기 메모리를 갖게 하세요: {call} :: 먼저 contiguous 연산으로 자기 메모리를 갖게 하세요",
    "nan-gradient": "그 단계({op})에 들어간 값을 보세요. isfinite 연산으로 어느 원소인지 찾을 수 있습니다",
    "allow-unused": '쓰이지 않은 입력의 기울기를 null로 받으려면 "allow_unused": true를 주세요',
    "requires-grad": (
        "기울기를 구할 텐서를 먼저 표시하고, 결과를 다시 계산하세요: {call} :: "
        '기울기를 구할 텐서를 requires_grad_ 연산으로(또는 만들 때 "requires_grad": true로) 표시하고, '
        "결과를 다시 계산하세요"
    ),
    "retain-graph": (
        "결과를 다시 계산하거나, 처음 역전파할 때 그래프를 남겨 두세요: {call} :: "
        '결과를 다시 계산하거나, 처음 역전파할 때 "retain_graph": true를 주세요'
    ),
    "saved-changed": (
        "{op} 연산의 기울기에는 바뀌기 전의 값이 필요합니다. "
        "이름 끝에 밑줄이 없는 연산을 쓰거나, clone한 텐서를 바꾸세요"
    ),
    "leaf-inplace": (
        '옵티마이저가 하듯 "no_grad": true와 함께 바꾸거나, 새 텐서를 만드는, 이름 끝에 밑줄이 없는 연산을 쓰세요'
    ),
    "detach": ("{call} 호출이 계산 기록 없이 같은 값을 줍니다 :: detach 연산이 계산 기록 없이 같은 값을 줍니다"),
    "out-of-place": "새 텐서를 만드는, 이름 끝에 밑줄이 없는 연산을 쓰거나, clone한 텐서를 바꾸세요",
    "clone-first": (
        "먼저 원소마다 자기 메모리를 갖게 하세요: {call} :: 먼저 clone 연산으로 원소마다 자기 메모리를 갖게 하세요"
    ),
    # -------------------------------------------------------- sessions, memory, workers
    "free-memory": (
        "{whose} 메모리에서 더 필요 없는 텐서를 지우세요: DELETE /v1/tensors/{{id}}, 또는 "
        'DELETE /v1/tensors?unnamed=true. 프로그램에서는 "no_grad": true를 주면 계산 기록이 남지 않습니다'
    ),
    "free-biggest": (
        "{whose} 메모리에서 더 필요 없는 것을 지우세요. 내 것 가운데 큰 것: {holders}. "
        "DELETE /v1/tensors/{first}, 또는 DELETE /v1/tensors?unnamed=true. 전체 목록: "
        'GET /v1/sessions/{{id}}/memory. 프로그램에서는 "no_grad": true를 주면 계산 기록이 남지 않습니다'
    ),
    "free-tape": (
        "DELETE /v1/tensors/{first} 요청은 {first} 뒤의 계산 기록을 지우며, backward도 지웁니다. 기울기가 필요 없으면 "
        '"no_grad": true를 주세요. 계산 기록이 무엇을 잡고 있는지는 GET /v1/sessions/{{id}}/memory 목록에 있습니다'
    ),
    "time-limit": (
        "한 번에 보내는 단계나 반복을 줄이거나 더 작은 텐서를 쓰세요. 한도는 {limit}초이며, 서버를 시작할 때 "
        "--max-seconds로 정해집니다"
    ),
    "too-costly": (
        "피연산자를 줄이거나 여러 단계로 나누면 제때 끝납니다. 한도는 {limit}초이며, 서버를 시작할 때 "
        "--max-seconds로 정해집니다"
    ),
    "answer-too-large": (
        "values=all을 빼고 텐서를 id로 읽으세요. 일부만 GET /v1/tensors/{{id}}?index=0:1000, 또는 바이트로 "
        "GET /v1/tensors/{{id}}?as=npy"
    ),
    "list-jobs": "GET /v1/jobs 요청으로 내 작업을 볼 수 있습니다. 결과는 정해진 시간과 개수만큼만 남습니다",
    "job-lost": "세션을 새로 만들어 다시 보내세요. 서버를 `--data-dir` 옵션으로 시작하면 작업과 세션이 남습니다",
    "too-many-listeners": "그 가운데 몇 개를 끊으세요. 한 사람이 한 번에 {limit}개까지 들을 수 있습니다",
    "event-id": "마지막으로 받은 이벤트의 `id`를 보내거나, 처음부터 다시 들으려면 이 헤더를 빼세요",
    "list-sessions": "GET /v1/sessions 요청으로 내 세션을 볼 수 있습니다",
    "delete-sessions": "가지고 있는 세션 {held}개 가운데 몇 개를 지우세요: DELETE /v1/sessions/{{id}}",
    "session-name-rule": "이름에는 영문자, 숫자, _, ., -를 255자까지 쓸 수 있고, .이나 -로 시작할 수 없습니다",
    "session-name-taken": "다른 이름을 고르거나, 그 이름을 가진 세션을 DELETE로 지우세요",
    "make-session-anew": "POST /v1/sessions 요청으로 새 세션을 만드세요. 예전 세션에 있던 것은 사라졌습니다",
    "try-again": "잠시 뒤에 다시 보내세요",
    "queue-full": "보낸 요청 {waiting}개 가운데 몇 개가 끝나기를 기다리세요. 기다릴 수 있는 요청은 {limit}개까지입니다",
    "worker-lost": "워커가 새로 시작합니다. 서버가 디스크에 저장한다면 응답을 받은 것은 그대로 있습니다",
    "log-failed": "운영자가 디스크와 서버 로그를 살펴보고 서버를 다시 시작해야 합니다",
    "disk-full": "디스크 공간을 비우거나 필요 없는 세션을 DELETE 한 뒤 다시 보내세요",
    "snapshot-how": "이런 파일은 GET /v1/sessions/{{id}}/snapshot 요청으로 만듭니다. "
    "다른 곳에서 온 state dict는 POST /v1/tensors로 올리세요",
    "fork-public": "이 세션은 GET으로 읽을 수만 있습니다. "
    'POST /v1/sessions {{"fork": "{public}"}} 요청으로 내 복사본을 만드세요',
    "session-damaged": "운영자가 `python -m app repair` 명령으로 남아 있는 만큼 되살릴 수 있습니다",
    "new-idempotency-key": "요청마다 새 UUID 같은 고유한 키를 쓰고, 같은 키는 같은 요청을 되풀이할 때만 쓰세요",
    "killed-worker": "프로그램을 더 작게 나누세요. 메모리가 모자랐거나 한 단계가 너무 오래 걸렸을 가능성이 큽니다",
    "step-overdue": "피연산자를 나누어 여러 단계로 계산하세요. 시간은 단계 사이에 확인합니다. "
    "프로그램은 {limit}초까지 실행할 수 있습니다(--max-seconds)",
    "server-ending": "몇 초 뒤에 다시 보내세요",
    "device-lost": (
        "워커가 새로 시작합니다. 가지고 있던 것은 없어졌습니다. 또 실패하면 {device} 오류의 원인은 이 단계입니다"
    ),
    "device-lost-late": (
        "워커가 새로 시작합니다. 가지고 있던 것은 없어졌습니다. {device} 오류는 늦게 드러나므로 원인은 "
        "앞 단계일 수 있습니다. --sync-steps로 켠 서버는 원인이 된 단계를 알려 줍니다"
    ),
    "report-bug": "서버의 버그입니다. 참조 번호 {reference}와 함께 알려 주세요",
    # -------------------------------------------------------- bodies and forms
    "json-nan": 'JSON에 없는 숫자는 "NaN", "Infinity", "-Infinity" 문자열로 쓰세요',
    "json-quotes": "JSON 문자열에는 큰따옴표를 씁니다. 셸이 큰따옴표를 없앤다면 필드로 보내세요: -d size=[2,3]",
    "json-python": "JSON에서는 true, false, null을 소문자로 씁니다",
    "json-object": '객체 {{"name": value}}나 필드 -d name=value로 보내세요',
    "form-how": "JSON으로 보내거나, 필드로 보내세요. 예: curl -d size=[2,3] -d out_name=x",
    "npy-how": ("numpy.save가 만든 파일을 이렇게 보내세요: --data-binary @x.npy -H 'Content-Type: application/x-npy'"),
    "csv-how": "행마다 같은 개수의 숫자를 쉼표로 나누어 보내세요. ?skip_rows=1은 머리글을 건너뜁니다",
    "npy-dtype": "저장하기 전에 바꾸세요: numpy.save('x.npy', x.astype('float32'))",
    "npy-records": "필드 하나를 배열로 저장하세요: numpy.save('x.npy', x['field'])",
    "csv-encoding": "파일을 UTF-8로 저장하세요(스프레드시트에서는 CSV UTF-8)",
    "csv-empty-field": "모든 칸에 숫자가 있어야 합니다. 빠진 값은 NaN으로 쓸 수 있습니다",
    "csv-comma": "숫자 사이에 쉼표를 쓰세요. 세미콜론과 탭은 읽지 않습니다",
    "csv-shape": "?index=로 1, 2차원인 부분을 고르거나 다른 형식을 요청하세요: {forms}",
    "picture-how": "파일을 그대로 보내세요: --data-binary @x.png -H 'Content-Type: image/png'",
    "picture-depth": "채널당 8비트로 저장하거나, 숫자를 npy 파일로 보내세요",
    "picture-size": "먼저 그림을 줄이세요",
    "image-how": "?kind=를 빼면 모양에 맞게 그립니다. ?index=로 차원이 더 적은 부분을 고를 수 있습니다",
    "image-part": "일부만, 또는 네 행마다 하나씩 그리세요: GET /v1/tensors/{ref}/image?index=::4",
    "other-form": "다른 형식을 요청하세요: {forms}",
    "accept-how": "?as=나 Accept 헤더로 고르세요: {forms}",
    "content-types": "Content-Type 헤더와 함께 다음 형식으로 보내세요: {types}",
    "max-body": "한도는 {limit}바이트이며, 서버를 시작할 때 --max-body로 정해집니다",
    "program-entry": "프로그램의 JSON을 메타데이터에 넣으세요: "
    'save_file(tensors, path, metadata={{"program": json.dumps(program)}})',
    "input-once": "프로그램의 inputs나 파일 중 한쪽에서 {name} 항목을 빼세요",
    "raw-how": "바이트가 무엇인지 알려 주세요. 예: ?dtype=float32&shape=2,3",
    "names-need-safetensors": "여러 텐서를 담는 형식으로 요청하세요: GET /v1/tensors?names={names}&as=safetensors",
    "delete-unnamed": (
        "DELETE /v1/tensors?unnamed=true는 이름 없는 텐서를 모두 지우고, DELETE /v1/tensors/{{id}}는 하나를 지웁니다"
    ),
    "if-match-how": ('If-Match는 텐서 하나를 바꾸는 요청에 씁니다. 프로그램에서는 "expect": {{"w": etag}}를 쓰세요'),
    "if-none-match-how": "이름을 주는 요청에 If-None-Match: *를 쓰면, 이미 쓰인 이름일 때 409로 답합니다",
    "one-session": "Curlgrad-Session 헤더와 ?session= 가운데 하나만 보내거나, 둘을 똑같이 보내세요",
    # -------------------------------------------------------- who may ask
    "allowed-host": "{host} 이름이 이 서버의 것이라면 서버를 --allowed-host {host} 옵션으로 시작하세요",
    "send-key": (
        "Authorization: Bearer KEY 헤더를 보내세요. 키는 서버를 운영하는 사람이 python -m app keys create 로 만듭니다"
    ),
    "other-key": "서버를 운영하는 사람에게 새 키를 요청하세요",
    "slower": "Retry-After가 말하는 대로 {seconds}초 기다리세요. 여러 단계의 프로그램도 요청 하나입니다",
    "missing-scope": "서버를 운영하는 사람에게 {scope} 권한이 있는 키를 요청하세요",
    "cors-origin": "그 사이트의 페이지를 허용하려면 서버를 --cors-origin {origin} 옵션으로 시작하세요",
}

NOTES: Mapping[str, str] = {
    # -------------------------------------------------------- dtype
    "dtype.inplace": "제자리(in-place) 연산은 텐서의 dtype을 바꾸지 않습니다. {param} 텐서는 {dtype} 타입입니다",
    "dtype.given": "요청한 dtype입니다: {dtype}",
    "dtype.cast": "{op} 연산이 {have} 타입을 {dtype} 타입으로 바꿉니다",
    "dtype.constructor": "{op} 연산은 언제나 {dtype} 타입을 만듭니다",
    "dtype.index": "위치(인덱스)는 값의 타입과 상관없이 {dtype} 타입입니다",
    "dtype.count": "개수는 {dtype} 타입입니다",
    "dtype.data-int": (
        "{param} 안의 숫자에 소수점이 없어서 정수인 {dtype} 타입이 됩니다(1.0이라고 쓰면 부동소수점 수입니다)"
    ),
    "dtype.data-float": "{param} 안에 소수점이 있는 숫자가 있어서 세션의 기본 dtype인 {dtype} 타입이 됩니다",
    "dtype.data-bool": "true와 false는 {dtype} 타입이 됩니다",
    "dtype.uploaded": "올린 데이터에 적힌 dtype({dtype})을 그대로 둡니다",
    "dtype.default": "dtype을 주지 않아서 세션의 기본 dtype인 {dtype} 타입입니다",
    "dtype.whole-numbers": "dtype을 주지 않았고 숫자가 정수여서(1.0이 아니라 1) {dtype} 타입입니다",
    "dtype.kept": "{param} 텐서가 {dtype} 타입이고, 이 연산은 dtype을 바꾸지 않습니다",
    "dtype.same": "모두 {dtype} 타입이어서 결과도 같습니다: {params}",
    "dtype.of": "값이 {param} 텐서에서 오므로 그 dtype인 {dtype} 타입입니다",
    "dtype.is": "이 연산의 결과는 {dtype} 타입입니다",
    "dtype.category": (
        "{param}({dtype}) 쪽이 {other}({have}) 쪽을 이깁니다. bool, 정수, 부동소수점 수, 복소수 차례로 높아지고, "
        "{high_word} 쪽이 {low_word} 쪽보다 높습니다"
    ),
    "dtype.wider": "{param}({dtype}), {other}({have}) 둘 다 같은 종류의 수여서, 더 넓은 dtype이 이깁니다",
    "dtype.both": "{a}, {b} 둘 다 상대의 값을 모두 담지는 못해서, 양쪽을 모두 담는 {dtype} 타입이 됩니다",
    "dtype.raised-by-number": (
        "{other} 텐서는 {low_word}({have})인데 {param} 자리의 숫자가 더 높은 종류인 {high_word}여서, "
        "결과는 {dtype} 타입입니다"
    ),
    "dtype.raised-by-0d": (
        "{other} 텐서는 {low_word}({have})인데 0차원 텐서 {param} 쪽이 더 높은 종류인 {high_word}여서, "
        "결과는 {dtype} 타입입니다"
    ),
    "dtype.over-number": (
        "텐서인 {param} 쪽이 dtype을 정합니다. {other} 같은 보통 숫자는 더 높은 종류일 때만 dtype을 바꾸므로 "
        "그대로 {dtype} 타입입니다"
    ),
    "dtype.over-0d": (
        "차원이 있는 {param} 쪽이 dtype을 정합니다. {other}({have}) 같은 0차원 텐서는 더 높은 종류일 때만 dtype을 "
        "바꾸므로 그대로 {dtype} 타입입니다"
    ),
    "dtype.truth": "참인지 거짓인지 묻는 연산이어서 답은 {dtype} 타입입니다",
    "dtype.int64-sum": "{have} 값의 합이나 곱은 넘치지 않도록 {dtype} 타입으로 구합니다",
    "dtype.to-float": "결과가 정수가 아닐 수 있어서 {have} 타입이 세션의 기본 dtype인 {dtype} 타입이 됩니다",
    "dtype.real": "복소수({have})에서 실수 결과를 얻는 연산이어서 {dtype} 타입입니다",
    "dtype.complex": "{have} 수 두 개가 복소수 하나가 됩니다: {dtype}",
    # -------------------------------------------------------- shape
    "shape.size": "요청한 shape입니다: {shape}",
    "shape.matmul": (
        "{a}, {b}의 안쪽 크기는 둘 다 {inner}입니다. 행과 열을 곱해 더하면서 사라지고, "
        "바깥쪽 크기가 남아 {shape} 모양이 됩니다"
    ),
    "shape.matmul-batch": (
        "{a}, {b}의 마지막 두 차원을 행렬로 곱해 안쪽 크기({inner})는 사라지고, 그 앞 차원은 브로드캐스팅되어 "
        "{shape} 모양이 됩니다"
    ),
    "shape.matrix-vector": (
        "{a}의 행마다 벡터 {b}와 곱해 {inner}칸을 더합니다. 행마다 숫자 하나가 남아 {shape} 모양이 됩니다"
    ),
    "shape.vector-matrix": (
        "벡터 {a}를 {b}의 열마다 곱해 {inner}칸을 더합니다. 열마다 숫자 하나가 남아 {shape} 모양이 됩니다"
    ),
    "shape.dot": "{size}칸짜리 두 벡터를 칸끼리 곱해 더하면 숫자 하나, 곧 0차원 텐서가 됩니다",
    "shape.linear": (
        "{a}의 마지막 차원에 있는 특성 {inner}개를 가중치 {b}의 행마다 곱해 더합니다. "
        "가중치의 행마다 숫자 하나가 남아 {shape} 모양이 됩니다"
    ),
    "shape.outer": "{a}의 칸마다 {b}의 모든 칸을 곱해 {shape} 모양이 됩니다",
    "shape.cell-by-cell": "shape가 {shape}로 같아서 같은 자리의 칸끼리 계산합니다: {params}",
    "shape.single": "{param} 쪽은 숫자 하나(0차원)여서 {shape}의 모든 칸에 똑같이 쓰입니다",
    "shape.missing": (
        "브로드캐스팅: {param}의 shape는 {have}, 결과는 {shape}입니다. 마지막 차원부터 견주면 {param} 쪽에는 "
        "차원 {dims} 자리가 없어서, 그 방향으로 {sizes}번 되풀이해 쓰입니다"
    ),
    "shape.stretched": (
        "브로드캐스팅: {param}의 shape는 {have}, 결과는 {shape}입니다. 차원 {dims}의 크기가 1이어서, "
        "그 방향으로 {sizes}번 되풀이해 쓰입니다"
    ),
    "shape.resized": "칸 {count}개를 행 차례 그대로 두고 크기만 {have}에서 {shape}로 바꿨습니다",
    "shape.guessed": "-1 자리의 크기는 전체 칸 수({count})에서 계산했습니다: {size}",
    "shape.swapped": "두 차원이 자리를 바꿔 행이 열이 됩니다: {have} → {shape}",
    "shape.permuted": "{have}의 차원을 {dims} 순서로 놓았습니다: {shape}",
    # -------------------------------------------------------- dim
    "dim.all": "{have}의 칸 {count}개가 모두 하나로 합쳐졌습니다. dim을 주면 한 차원을 따라서만 합칩니다",
    "dim.joined-row": "dim {dim} 방향은 각 행을 따라갑니다. 한 행의 칸 {count}개가 하나로 합쳐져 {have} → {shape}",
    "dim.joined-column": (
        "dim {dim} 방향은 각 열을 따라 내려갑니다. 한 열의 칸 {count}개가 하나로 합쳐져 {have} → {shape}"
    ),
    "dim.joined-vector": "차원이 dim {dim} 하나뿐입니다. 벡터의 칸 {count}개가 하나로 합쳐져 {have} → {shape}",
    "dim.joined-other": (
        "dim {dim}의 크기는 {count}입니다. 이 인덱스만 서로 다른 칸 {count}개가 하나로 합쳐져 {have} → {shape}"
    ),
    "dim.joined-several": "dim {dims}의 인덱스만 서로 다른 칸 {count}개가 하나로 합쳐져 {have} → {shape}",
    "dim.kept": "keepdim이어서 dim {dims} 자리가 크기 1로 남았습니다: {shape}",
    "dim.cat-row": "dim {dim} 방향으로 이으면 옆으로 나란히 놓입니다: {parts} = {size}열, {shape}",
    "dim.cat-column": "dim {dim} 방향으로 이으면 위아래로 놓입니다: {parts} = {size}행, {shape}",
    "dim.cat-vector": "dim {dim} 방향으로 차례로 이어집니다: {parts} = {size}칸, {shape}",
    "dim.cat-other": "dim {dim}의 크기만 더해지고({parts} = {size}) 나머지는 그대로입니다: {shape}",
    "dim.stack": "shape가 {have}인 텐서 {count}개가 새 차원 dim {dim} 방향으로 쌓입니다: {shape}",
    "dim.added": "dim {dim} 자리에 크기 1인 차원이 새로 생겼습니다: {have} → {shape}",
    "dim.dropped": "dim {dims} 자리는 크기가 1이어서 없어졌습니다: {have} → {shape}",
    "dim.none-dropped": "크기가 1인 차원만 없앨 수 있는데 그런 차원이 없어 {have} 그대로입니다",
    "dim.along-row": "dim {dim} 방향은 각 행을 따라갑니다. 칸이 {count}개인 행마다 따로 계산했습니다",
    "dim.along-column": "dim {dim} 방향은 각 열을 따라 내려갑니다. 칸이 {count}개인 열마다 따로 계산했습니다",
    "dim.along-vector": "차원이 dim {dim} 하나뿐이어서 벡터의 칸 {count}개를 함께 계산했습니다",
    "dim.along-other": "dim {dim}의 인덱스만 서로 다른 칸 {count}개를 함께 계산했습니다",
    "dim.picked-row": "dim {dim} 방향은 각 행을 따라가므로 열을 골랐습니다: {have} → {shape}",
    "dim.picked-column": "dim {dim} 방향은 각 열을 따라 내려가므로 행을 골랐습니다: {have} → {shape}",
    "dim.picked-vector": "차원이 dim {dim} 하나뿐이어서 벡터의 칸을 골랐습니다: {have} → {shape}",
    "dim.picked-other": "dim {dim}의 인덱스를 골랐고 나머지 차원은 그대로입니다: {have} → {shape}",
    "dim.cut-row": "dim {dim} 방향은 각 행을 따라가므로 열 {count}개를 나누었습니다",
    "dim.cut-column": "dim {dim} 방향은 각 열을 따라 내려가므로 행 {count}개를 나누었습니다",
    "dim.cut-vector": "차원이 dim {dim} 하나뿐이어서 벡터의 칸 {count}개를 나누었습니다",
    "dim.cut-other": "dim {dim}의 인덱스 {count}개를 나누었고 나머지 차원은 그대로입니다",
    # -------------------------------------------------------- device
    "device.given": "요청한 장치입니다: {device}",
    "device.default": "장치를 주지 않아서 세션의 장치인 {device}에 있습니다",
    "device.is": "결과는 {device}에 있습니다",
    "device.same": "{param} 텐서가 {device}에 있고, 결과는 피연산자가 있는 곳에 생깁니다",
    "device.scalar-joins": (
        "{other} 텐서가 {device}에 있습니다. CPU의 0차원 텐서인 {param} 쪽은 어느 장치의 텐서와도 함께 계산할 수 "
        "있습니다"
    ),
    # -------------------------------------------------------- memory
    "memory.view": (
        "뷰(view)입니다. {param} 텐서와 메모리를 함께 쓰므로, 한쪽을 제자리에서 바꾸면 다른 쪽에도 보입니다"
    ),
    "memory.view-of": (
        "뷰(view)입니다. {base} 텐서와 메모리를 함께 쓰므로, 한쪽을 제자리에서 바꾸면 다른 쪽에도 보입니다"
    ),
    "memory.view-unnamed": "더는 id가 없는 텐서의 뷰(view)이며, 그 텐서와 메모리를 함께 씁니다",
    "memory.detached": (
        "{param} 텐서와 메모리는 함께 쓰지만 계산 기록은 없습니다. 한쪽을 제자리에서 바꾸면 다른 쪽에도 보이고, "
        "기울기(gradient)는 흐르지 않습니다"
    ),
    "memory.repeats": ("여러 칸이 복사되지 않은, {param} 텐서의 같은 칸입니다. 제자리에서 바꾸려면 먼저 clone하세요"),
    "memory.itself": "바꿀 것이 없어서 복사하지 않았고, 결과는 {param} 텐서 자신입니다",
    "memory.inplace": (
        "{param} 텐서의 메모리에 썼습니다. id는 그대로이고 version은 이제 {version}이며, 그 뷰에도 바뀐 값이 보입니다"
    ),
    "memory.copy": "자기 메모리를 가진 복사본입니다. 나중에 {param} 텐서를 바꿔도 여기에는 보이지 않습니다",
    "memory.copy-reshape": (
        "복사본입니다. {param} 텐서의 칸이 메모리에 {shape} 모양에 필요한 순서로 놓여 있지 않아(stride {strides}) "
        "뷰를 만들 수 없었고, 나중에 {param} 텐서를 바꿔도 여기에는 보이지 않습니다"
    ),
    "memory.copy-index": (
        "복사본입니다. 인덱스 리스트나 텐서, 마스크로 고른 칸은 뷰로 나타낼 수 없습니다. "
        "숫자와 슬라이스만 쓰면 {param} 텐서의 뷰가 됩니다"
    ),
    # -------------------------------------------------------- requires_grad
    "requires_grad.recorded": "{param} 텐서가 requires_grad여서 이 계산이 {grad_fn} 노드로 기록되었습니다",
    "requires_grad.leaf": "requires_grad인 리프 텐서입니다. 역전파(backward) 때 기울기(gradient)가 여기에 쌓입니다",
    "requires_grad.none": "false입니다. 피연산자 가운데 requires_grad인 것이 없습니다({params})",
    "requires_grad.whole": "false입니다. {dtype} 결과에는 기울기가 없어서 gradient가 흐르지 않습니다",
    "requires_grad.no-grad": "{param} 텐서가 requires_grad인데도 false입니다. no_grad에서는 계산을 기록하지 않습니다",
    "requires_grad.no-rule": "false입니다. {op} 연산으로는 기울기(gradient)가 흐르지 않습니다",
    "requires_grad.detached": "false입니다. {param} 텐서를 detach해서 계산 기록이 여기서 끊깁니다",
    "requires_grad.view-no-grad": "requires_grad인 {param} 텐서를 no_grad에서 본 뷰이며, 계산은 기록되지 않았습니다",
    # -------------------------------------------------------- gradients
    "grad.accumulated": "{name} 텐서의 기울기(gradient)는 마지막으로 지운 뒤의 모든 역전파를 더한 값입니다",
    "grad.whole": (
        "null입니다. {name} 텐서는 {dtype} 타입인데, 부동소수점이나 복소수 텐서만 기울기(gradient)를 가집니다"
    ),
    "grad.not-required": "null입니다. {name} 텐서가 requires_grad가 아니어서 역전파 때 기울기가 쌓이지 않습니다",
    "grad.not-leaf": (
        "null입니다. 계산된 텐서({grad_fn})이고 리프 텐서가 아닙니다. 역전파는 여기를 지나가지만 기울기는 리프 "
        "텐서에만 "
        "남깁니다(autograd.grad는 어떤 텐서의 기울기든 줍니다)"
    ),
    "grad.unused": "null입니다. 세션에 남은 것 가운데 {name} 텐서로 계산한 것이 없어서 역전파가 닿지 않습니다",
    "grad.no-backward": (
        "null입니다. {name} 텐서로 {other} 텐서를 계산했지만, 거기서 아직 역전파(backward)를 하지 않았거나 "
        "그 뒤에 기울기를 지웠습니다"
    ),
    "grad.not-reached": "null입니다. 역전파를 시작한 텐서가 {name} 텐서에 의존하지 않아서 역전파가 닿지 않았습니다",
    "grad.not-from": (
        "null입니다. {name} 텐서로 계산한 {other} 텐서에서 역전파를 시작하지 않아서 기울기가 닿지 않았습니다"
    ),
    "grad.cleared": (
        "null입니다. {name} 텐서로 {other} 텐서를 계산했고 그 기록은 이미 쓰였지만, 그 뒤에 기울기를 지웠거나 다른 "
        "입력의 "
        "기울기를 구한 것입니다(autograd.grad는 .grad를 바꾸지 않습니다)"
    ),
    "grad.unused-input": "{param} 자리는 null입니다. 출력이 그 입력에 의존하지 않습니다",
}

WORDS: Mapping[str, str] = {
    "bool": "bool",
    "int": "정수",
    "float": "부동소수점 수",
    "complex": "복소수",
    "session": "세션",
    "owner": "키",
    "server": "서버",
    "device": "장치",
}
