"""English: the sentences of hints and notes.

In a hint `{call}` is the first call that mends the error and `{calls}` all of them, as a user would send them; any
other name in braces is a fact. Where an error may come without a call that can be completed, the sentence has two
forms, `with {call} :: without`. A note's key begins with what it is about.
"""

from __future__ import annotations

from collections.abc import Mapping

HINTS: Mapping[str, str] = {
    # -------------------------------------------------------- names and routes
    "near-names": "did you mean {near}?",
    "known-names": "the names are {names}",
    "takes-none": "it takes none",
    "list-ops": "GET /v1/ops lists every operation",
    "route-near": "did you mean {method} {path}?",
    "route-list": "the calls are described at /docs, the operations listed at /v1/ops",
    "methods": "it takes {methods}",
    "near-parameter": 'did you mean "{near}"?',
    "parameters": "its parameters are {params}",
    "namesake": "{other} takes {param}: another operation of that name",
    "near-field": 'did you mean "{near}"?',
    "fields": "the fields are {fields}",
    "choice": 'did you mean "{near}"?',
    "choices": "it is one of {choices}",
    "argument-type": "{param} takes: {type}",
    "missing-parameter": "{op} needs {param} ({type}); GET /v1/ops/{op} describes it",
    "list-tensors": "GET /v1/tensors lists what there is",
    "name-rule": "names are made of letters, digits, _, . and -: w, h_1 and 0.weight are names",
    "name-taken": "choose another name; without If-None-Match, {name} would from now on mean the new tensor",
    "out-count": "give {count} names",
    "read-again": "read it again with GET /v1/tensors/{name}, and decide anew",
    "make-state": "optim.adam_state and its like make one; keep it under a name",
    "limit": "{name} is {limit} on this server, set when it is started",
    # -------------------------------------------------------- names of PyTorch that are no operations
    "no-module": (
        "modules are objects; here their weights are tensors of yours, and what they do is an operation: {near}"
    ),
    "no-optimizer": "an optimizer keeps its state itself; here a step takes params, grads and a state, as {near}",
    "no-function-here": 'the function is a program here, given as "func"; see {near} in the reference',
    "no-container": "layers are steps of a program here, and their weights tensors of yours: POST /v1/programs",
    "no-parameter": 'any tensor can require a gradient: {{"data": [1.5], "requires_grad": true}}, or requires_grad_',
    "no-block": 'a block is a field here: "no_grad": true on an operation, a step or a program',
    "no-anomaly-block": (
        'a block is a field here: "detect_anomaly": true on a program; autograd.set_detect_anomaly is for all of them'
    ),
    "no-clearing": 'PATCH with {{"grad": null}} clears the gradient of a tensor; autograd.grad never adds to one',
    "no-gradient-name": (
        "write x.grad where a tensor is taken, or GET /v1/tensors/{{id}}/grad; autograd.grad computes "
        "gradients without storing them"
    ),
    "no-vmap": (
        "there is no vmap: make the batch a leading dimension; operations broadcast over it, and matmul, bmm "
        "and einsum multiply over it"
    ),
    "no-functions": (
        'no Python runs on the server: programs are made of steps, "repeat" runs steps again, and where '
        "chooses between two results"
    ),
    "no-hooks": (
        "there are no hooks: the steps of a program see every tensor, and retain_grad keeps the gradient of "
        "one that is no leaf"
    ),
    "no-sparse": "all tensors here are dense: zeros makes one, index_put_ and scatter_ fill in values",
    "no-nested": (
        "a tensor here has one length in each dimension: nn.utils.rnn.pad_sequence pads, "
        "nn.utils.rnn.pack_sequence packs"
    ),
    "no-quantized": (
        "there are no quantized dtypes and no float8: fake_quantize_per_tensor_affine gives the values of "
        "quantized numbers, as floats"
    ),
    "no-such-dtype": "it needs a dtype that is not among those of GET /v1/info",
    "no-memory": (
        "memory on the server has no address for you: GET /v1/tensors/{{id}} reads the values, as bytes with "
        "Accept: application/x-npy"
    ),
    "no-upload": (
        "POST /v1/tensors takes numbers, and arrays as bytes: application/x-npy, application/octet-stream, "
        "text/csv, image/png"
    ),
    "no-files": (
        "GET /v1/sessions/{{id}}/snapshot gives all that a session holds as one file, and PUT of it brings "
        "it back; POST /v1/tensors takes npy and safetensors"
    ),
    "no-printing": "GET /v1/tensors/{{id}} with ?as=text gives what print would",
    "no-setting": "the server decides that, when it is started",
    "no-default-device": (
        "a session is made for a device, and with a default dtype: POST /v1/sessions; set_default_dtype "
        "changes the latter"
    ),
    "no-autocast": 'cast what should be of another dtype: the operation to with "dtype": "bfloat16"',
    "no-generator": (
        "a session has one generator: manual_seed seeds it, get_rng_state and set_rng_state read and set it"
    ),
    "no-data-loader": (
        "batches are yours to send: with each call, or as one tensor of which index_select takes the rows of a batch"
    ),
    "no-cuda-call": (
        "GET /v1/devices tells of devices, and /v1/sessions/{{id}}/memory of what is held; each call has "
        "finished when it answers"
    ),
    "no-scheduler": 'a schedule is a number for each step: give it as "lr" of the optimizer\'s step',
    "no-class": "classes of PyTorch's Python have no meaning over HTTP",
    "no-inside": "it is a part of how PyTorch works inside; GET /v1/ops lists every operation",
    # -------------------------------------------------------- values
    "ragged": "all lists of one level must have one length; in {param}, the first that has another is at {path}",
    "data-words": (
        'numbers stand without quotes: 1, not "1"; the only strings among them are "NaN", "Infinity" and "-Infinity"'
    ),
    "complex-pairs": "a complex number is [re, im], so complex data have one level more, of length 2",
    "tensor-data": 'a tensor that is written out is an object with data: {{"data": [[1.0, 2.0]]}}',
    "slice": 'slices are strings such as "1:", ":-1" and "::2"',
    # -------------------------------------------------------- what a beginner meets besides
    "give-field": 'give it: {{"{name}": ...}}',
    "data-shape": "the sizes of shape multiply to the number of values, here {count}; without shape it is {shape}",
    "one-unknown": "one size at most may be -1: it is worked out from the others",
    "size-range": "sizes are whole numbers from 0 on",
    "step-sign": 'from {start} to {end} the step goes the other way: give a "step" with the sign {sign}',
    "tensor-list": 'put it into a list: "{param}": ["{name}"]',
    "collect-one": "collect one number a round, as sum, mean or a loss gives; return gives whole tensors at the end",
    "logical-instead": (
        "true and false have an operation of their own: {call} :: true and false have an operation of their own: {name}"
    ),
    "cast-bool": 'to count with true and false, cast them to numbers first: the operation to with "dtype": "int64"',
    "matmul-any": (
        "mm takes two matrices; matmul takes vectors and stacks of matrices as well: {call} :: mm takes "
        "two matrices; matmul takes vectors and stacks of matrices as well"
    ),
    "not-sorted": '"enforce_sorted": false sorts them first, and gives the order back as unsorted_indices',
    "some-tensors": 'give at least one, as in "tensors": ["x", "y"]',
    "one-target-each": "there is one target for each row of the input, so {count} of them",
    "more-classes": 'classes are counted from 0, so there are at least {count} of them: "num_classes": {count}',
    "every-dim": "dims names every dimension once, in the new order; {order} would change nothing",
    "index-count": (
        "an index has one item for each dimension at most, here {ndim}; null adds a dimension and takes none"
    ),
    "k-range": "k goes from 0 to {high} here, the size of the dimension",
    "square": "only a square matrix has one, and {rows} by {columns} is none; pinverse takes matrices of any shape",
    "gradient-each": "give {count} gradients, in the order of params; null leaves a parameter as it is",
    "rate-range": "{name} is a number from 0 on",
    "field-once": "send each field once; several values are a list, as in -d size=[2,3]",
    "json-comma": "JSON has commas between values, and none after the last",
    "json-key": (
        'names stand in double quotes: {{"input": "x"}}; where the shell takes them away, send fields: -d input=x'
    ),
    "name-id": (
        "tensors get ids of the form t1, t2, ... by themselves, and {name} may be one of them some day: "
        "x{name} is a name"
    ),
    "name-json": "{name} in an argument is a value, so no tensor could be meant by it: x{name} is a name",
    "name-grad": (
        "{name} always means the gradient of {base}, so no other tensor can be called so: {base}_grad is a name"
    ),
    "index-items": (
        'an index has whole numbers (1, not 1.0), slices such as "1:", "...", null, and tensors or lists '
        "of int64 or bool"
    ),
    # -------------------------------------------------------- dtypes and devices
    # What a beginner meets first is tested word for word in tests/app/test_teaching.py.
    "cast-one": (
        "cast {param} first: {call}; that makes a new tensor, so use its id, "
        'or add "out_name" to give it the old one\'s name'
    ),
    "cast-input": (
        "the tensor is {have}; cast it to a floating-point dtype first: {call} :: "
        "the values are {have}; give floating-point ones (1.0 instead of 1)"
    ),
    "cast-float": (
        "the tensor is {have}; cast it to a floating-point dtype first: {call} :: "
        "the values are {have}; give floating-point ones (1.0 instead of 1)"
    ),
    "mean-dtype": (
        "the mean of {have} is no {have}; say in which dtype it is computed: {call} :: "
        'the mean of {have} is no {have}; say in which dtype it is computed: "dtype": "float32"'
    ),
    "cast-index": (
        "{param} must be whole numbers of the dtype int64, and is {have}: {call} makes a new tensor of them, "
        "so use its id :: {param} must be whole numbers of the dtype int64 (JSON's 1, not 1.0), and is {have}"
    ),
    "bool-mask": 'comparisons (gt, eq, ...) make boolean tensors, and so does the operation to with "dtype": "bool"',
    "inplace-dtype": (
        "the result is {want} and cannot be kept in a tensor of {have}: use the operation without its underscore, "
        "or cast the tensor first: {call} :: the result is {want} and cannot be kept in a tensor of {have}: "
        "use the operation without its underscore"
    ),
    "give-dtype": 'say the dtype as well: "dtype": "{dtype}" (in JSON, 1 is an integer and 1.0 a float)',
    "move-device": (
        "move one of them first: {call} makes a new tensor there, so use its id :: "
        "move one of them first, with the operation to, and use the id of the new tensor"
    ),
    "device-here": "the devices here are {devices}",
    "no-cuda": (
        "the devices here are {devices}; a server on a machine with an NVIDIA GPU is started with make serve CUDA=12, "
        "and one with --workers practice-cuda simulates a GPU"
    ),
    "device-elsewhere": (
        "this session holds tensors, so it stays where they are; make another one there: "
        'POST /v1/sessions {{"device": "{device}"}}'
    ),
    "float-exponent": "make one of the two a floating-point number: 2.0 ** -1 is 0.5, and no integer is",
    "integer-zero-division": "integers have no infinity: divide floats, or make sure that no divisor is 0",
    # -------------------------------------------------------- shapes
    "broadcast": (
        "counted from the last one, sizes must be equal or one of the two 1; {a} and {b} differ in dimension {dim}: "
        "unsqueeze, reshape or transpose one of them"
    ),
    "matmul-instead": (
        "bmm takes two stacks of matrices; matmul also takes one matrix for the whole stack: {call} :: "
        "bmm takes two stacks of matrices; matmul also takes one matrix for the whole stack"
    ),
    "transpose-two": (
        "t is for matrices; say which two dimensions to swap: {call} :: "
        "t is for matrices; use transpose, and say which two dimensions to swap"
    ),
    "einsum-sizes": (
        "{label} stands for dimensions of one size, and here they have {sizes}; "
        "name them by two letters, or transpose one"
    ),
    "inner-sizes": "the last size of {a} must equal the last but one of {b}: transpose one of them, perhaps",
    "dim-range": "dim goes from {low} to {high} here; negative ones count from the end",
    "index-range": "indices go from {low} to {high} here; the first that does not is {index}",
    "flip-instead": "steps are 1 or more; the operation flip turns a dimension round",
    "mask-shape": "a mask has the sizes of the dimensions it stands for: {mask} does not fit {shape}",
    "cat-sizes": "except in dimension {dim} all must have the same sizes; they are {shapes}",
    "stack-sizes": "stack takes tensors of one shape, and these are {shapes}; cat joins along a dimension they have",
    "stack-instead": "the operation stack joins 0-d tensors, into one of one dimension",
    "split-sizes": "the sizes must add up to {size}, the size of dimension {dim}",
    "conv-rank": "an input has the dimensions batch, channels and {dims} of space; the sizes here are {input}",
    "conv-channels": (
        "dimension 1 of the input is its channels: {have} here, where weight and groups make it {want}; "
        "permute it if the channels stand last"
    ),
    "conv-kernel": (
        "the kernel reaches over {kernel}, the padded input is {input}: add padding, or take a smaller one"
    ),
    "view-size": "the sizes of a shape multiply to the number of elements, here {total}; one of them may be -1",
    "use-reshape": 'the elements would have to be copied: use the operation reshape, with "shape": {shape}',
    "expand": "only a dimension of size 1 can be expanded; the operation repeat copies any",
    "use-logits": (
        "give probabilities, as sigmoid makes them; "
        "or the logits themselves to nn.functional.binary_cross_entropy_with_logits"
    ),
    # -------------------------------------------------------- matrices
    "singular": "the matrix has no inverse: its rows depend on each other; linalg.pinv gives the nearest there is",
    "positive-definite": (
        "only a symmetric matrix whose eigenvalues are all positive can be factored so: A @ A.T plus a little on the "
        "diagonal is one"
    ),
    "not-finite": "there is a NaN or an infinity in it: isfinite finds where",
    "pivot": "leave it true: rows are exchanged for the sake of precision, and LAPACK knows no other way",
    "pool-size": "the window reaches over {kernel}, and the input is {input}: take a smaller window, or add padding",
    "index-first": "its shape is {shape}: pick one element first (getitem), or reduce it to one (sum, mean)",
    # -------------------------------------------------------- autograd
    "backward-scalar": (
        'its shape is {shape}: reduce it to one number first ({call}), or give "gradient", of the same shape :: '
        'its shape is {shape}: reduce it to one number first, or give "gradient", of the same shape'
    ),
    "backward-real": 'only a real floating-point number has a gradient of its own; give "gradient"',
    "gradient-shape": "a gradient has the shape of what it is the gradient of, here {shape}",
    "no-grad-yet": (
        "there is one after a backward pass that reaches {name}, if {name} requires grad: "
        "POST /v1/tensors/{{id}}/backward"
    ),
    "phases": ("let the loss depend on what has no phase: eigenvalues, singular values, or products such as V @ V^H"),
    "function": (
        'write it as {{"inputs": ["x"], "steps": [{{"op": "exp", "args": {{"input": "x"}}, "out": "y"}}], '
        '"return": "y"}}'
    ),
    "strict": "without strict, what does not depend on an input has a derivative of zeros",
    "give-v": "give v, of the shape that the words above name",
    "double-precision": 'compare in float64: {{"data": …, "dtype": "float64", "requires_grad": true}}',
    "contiguous": "make memory of its own first: {call} :: make memory of its own first, by contiguous",
    "nan-gradient": "look at what went into that step, {op}: isfinite finds the elements",
    "allow-unused": 'say "allow_unused": true to get null for what was not used',
    "requires-grad": (
        "mark what you want gradients of, and compute the result anew: {call} :: "
        'mark what you want gradients of with requires_grad_ (or "requires_grad": true where it is made), '
        "and compute the result anew"
    ),
    "retain-graph": (
        "compute the result anew, or keep the tape at the first time: {call} :: "
        'compute the result anew, or say "retain_graph": true at the first time'
    ),
    "saved-changed": (
        "the gradient of {op} needs the value from before the change: "
        "use the operation without its underscore, or change a clone"
    ),
    "leaf-inplace": (
        'say "no_grad": true with the change, as an optimizer does, '
        "or use the operation without its underscore, which makes a new tensor"
    ),
    "detach": (
        "{call} gives the same values without their history :: "
        "the operation detach gives the same values without their history"
    ),
    "out-of-place": "use the operation without its underscore, which makes a new tensor, or change a clone",
    "clone-first": (
        "give its elements memory of their own: {call} :: "
        "give its elements memory of their own with the operation clone"
    ),
    # -------------------------------------------------------- sessions, memory, workers
    "free-memory": (
        "free what the {whose} no longer needs: DELETE /v1/tensors/{{id}}, or DELETE /v1/tensors?unnamed=true; "
        'and in a program, "no_grad": true keeps no tape'
    ),
    "free-biggest": (
        "free what the {whose} no longer needs; most of yours is in {holders}: DELETE /v1/tensors/{first}, or "
        "DELETE /v1/tensors?unnamed=true; GET /v1/sessions/{{id}}/memory lists all; in a program, "
        '"no_grad": true keeps no tape'
    ),
    "free-tape": (
        "DELETE /v1/tensors/{first} frees the tape behind {first}, as a backward pass does; "
        'or say "no_grad": true where no gradient is wanted; GET /v1/sessions/{{id}}/memory shows what the tape holds'
    ),
    "time-limit": (
        "send fewer steps or rounds at a time, or smaller tensors; the limit is {limit} seconds, set by --max-seconds "
        "when the server starts"
    ),
    "too-costly": (
        "smaller operands, or several steps over parts of them, would end in time; the limit is {limit} seconds, set "
        "by --max-seconds when the server starts"
    ),
    "answer-too-large": (
        "leave values=all out and read the tensor by its id: in parts, GET /v1/tensors/{{id}}?index=0:1000, or as "
        "bytes, GET /v1/tensors/{{id}}?as=npy"
    ),
    "list-jobs": "GET /v1/jobs lists yours; results are kept for a limited time and number",
    "job-lost": "make the session anew and send it again; `--data-dir` keeps jobs and sessions on disk",
    "too-many-listeners": "end some of them: at most {limit} requests of one caller may listen at a time",
    "event-id": "send the `id` of the last event that you got, or leave the header out to hear all from the beginning",
    "list-sessions": "GET /v1/sessions lists yours",
    "delete-sessions": "delete some of your {held} sessions: DELETE /v1/sessions/{{id}}",
    "session-name-rule": "a name has letters, digits, _, . and -, at most 255, and does not begin with . or -",
    "session-name-taken": "choose another name, or DELETE the session that has it",
    "make-session-anew": "POST /v1/sessions makes a new one; what was in the old one is lost",
    "try-again": "send it again in a moment",
    "queue-full": "wait for some of the {waiting} calls that you have sent; at most {limit} may wait",
    "worker-lost": "the worker starts anew; what was acknowledged is there again where the server keeps its "
    "data on disk",
    "log-failed": "the operator should look at the disk and the server's log, and start the server again",
    "disk-full": "free some of the disk, or DELETE sessions that are not needed, and send it again",
    "snapshot-how": "GET /v1/sessions/{{id}}/snapshot makes such a file; "
    "a state dict of other origin goes to POST /v1/tensors",
    "fork-public": 'others may read it: GET alone; POST /v1/sessions {{"fork": "{public}"}} makes a copy of your own',
    "session-damaged": "the operator can make it readable again, as far as it is there, with `python -m app repair`",
    "new-idempotency-key": "give each request a key of its own, such as a new UUID, and repeat the key with the same "
    "request alone",
    "killed-worker": "make it smaller: in all likelihood it needs more memory than there is, or more time for one step",
    "step-overdue": "split the step: parts of the operands in several steps, whose time is looked at in between; "
    "a program may run {limit} seconds (--max-seconds)",
    "server-ending": "send it again in a few seconds",
    "device-lost": "the worker starts anew, without what it held; if it fails again, this step is what breaks {device}",
    "device-lost-late": (
        "the worker starts anew, without what it held; errors of {device} come late, so an earlier step may be the "
        "cause: a server started with --sync-steps names the right one"
    ),
    "report-bug": "this is a bug of ours; please report it, with the reference {reference}",
    # -------------------------------------------------------- bodies and forms
    "json-nan": 'write the numbers that JSON lacks as the strings "NaN", "Infinity" and "-Infinity"',
    "json-quotes": "JSON's strings have double quotes; where the shell takes them away, send fields: -d size=[2,3]",
    "json-python": "JSON's words are true, false and null, in lower case",
    "json-object": 'send an object, {{"name": value}}, or fields, -d name=value',
    "form-how": "send JSON, or fields as in: curl -d size=[2,3] -d out_name=x",
    "npy-how": "numpy.save writes one; send it with --data-binary @x.npy -H 'Content-Type: application/x-npy'",
    "csv-how": "send numbers with commas between, as many in each row; ?skip_rows=1 skips a header",
    "npy-dtype": "convert it before you save it: numpy.save('x.npy', x.astype('float32'))",
    "npy-records": "save one field as an array of its own: numpy.save('x.npy', x['field'])",
    "csv-encoding": "save the file as UTF-8 (in a spreadsheet: CSV UTF-8)",
    "csv-empty-field": "every field needs a number; a missing one can be written as NaN",
    "csv-comma": "put commas between the numbers: semicolons and tabs are not read",
    "csv-shape": "pick one or two dimensions with ?index=, or another form: {forms}",
    "picture-how": "send the file as it is: --data-binary @x.png -H 'Content-Type: image/png'",
    "picture-depth": "save it with 8 bits a channel, or send its numbers as an npy file",
    "picture-size": "make the picture smaller first",
    "image-how": "leave ?kind= out, and it is drawn as its shape suggests; ?index= picks a part of fewer dimensions",
    "image-part": "draw a part of it, or every fourth row: GET /v1/tensors/{ref}/image?index=::4",
    "other-form": "ask for another form: {forms}",
    "accept-how": "choose with ?as= or the Accept header: {forms}",
    "content-types": "send one of {types}, with the header Content-Type",
    "max-body": "the limit is {limit} bytes, set by --max-body when the server starts",
    "program-entry": "put the program's JSON into the metadata: "
    'save_file(tensors, path, metadata={{"program": json.dumps(program)}})',
    "input-once": "leave {name} out of the program's inputs, or out of the file",
    "raw-how": "say what the bytes are, as in ?dtype=float32&shape=2,3",
    "names-need-safetensors": "ask for the form that holds many: GET /v1/tensors?names={names}&as=safetensors",
    "delete-unnamed": (
        "DELETE /v1/tensors?unnamed=true frees all that has no name; DELETE /v1/tensors/{{id}} frees one"
    ),
    "if-match-how": 'If-Match goes with calls that change one tensor; in a program, say "expect": {{"w": etag}}',
    "if-none-match-how": "on calls that give a name, If-None-Match: * asks for 409 where the name is taken",
    "one-session": "send either the header Curlgrad-Session or ?session=, or the same in both",
    # -------------------------------------------------------- who may ask
    "allowed-host": "if {host} is this server's name, start it with --allowed-host {host}",
    "send-key": (
        "send the header Authorization: Bearer KEY; whoever runs this server makes keys with: python -m app keys create"
    ),
    "other-key": "ask whoever runs this server for a new one",
    "slower": "wait {seconds} s, as Retry-After says; a program of many steps is one request",
    "missing-scope": "ask whoever runs this server for a key with the scope {scope}",
    "cors-origin": "to let pages of that site in, start the server with --cors-origin {origin}",
}

NOTES: Mapping[str, str] = {
    # -------------------------------------------------------- dtype
    "dtype.inplace": "an operation in place keeps the dtype of its tensor: {param} is {dtype}",
    "dtype.given": "the dtype was asked for: {dtype}",
    "dtype.cast": "{op} turns {have} into {dtype}",
    "dtype.constructor": "{op} always makes {dtype}",
    "dtype.index": "positions (indices) are {dtype}, whatever the values are",
    "dtype.count": "counts are {dtype}",
    "dtype.data-int": (
        "the numbers of {param} are written without a point, so they are whole numbers, {dtype} (1.0 would be "
        "floating-point)"
    ),
    "dtype.data-float": "{param} has numbers with a point, so it gets the session's default dtype, {dtype}",
    "dtype.data-bool": "true and false make {dtype}",
    "dtype.uploaded": "the uploaded data say their dtype, {dtype}, and keep it",
    "dtype.default": "no dtype was given, so it is the session's default dtype, {dtype}",
    "dtype.whole-numbers": "no dtype was given and the numbers are whole (1, not 1.0), so it is {dtype}",
    "dtype.kept": "{param} is {dtype}, and the operation keeps that",
    "dtype.same": "{params} are all {dtype}, and so is the result",
    "dtype.of": "the values come from {param}, which is {dtype}",
    "dtype.is": "this operation gives {dtype}",
    "dtype.category": (
        "{param} ({dtype}) wins over {other} ({have}): {high_word} rank above {low_word}, in the order bool, whole "
        "numbers, floating-point numbers, complex numbers"
    ),
    "dtype.wider": "{param} ({dtype}) and {other} ({have}) hold the same kind of numbers, and the wider dtype wins",
    "dtype.both": "neither {a} nor {b} can hold every value of the other, and {dtype} can hold both",
    "dtype.raised-by-number": (
        "{other} holds {low_word} ({have}) and the number given for {param} is of a higher kind, {high_word}, so the "
        "result is {dtype}"
    ),
    "dtype.raised-by-0d": (
        "{other} holds {low_word} ({have}) and the 0-d tensor {param} is of a higher kind, {high_word}, so the result "
        "is {dtype}"
    ),
    "dtype.over-number": (
        "the tensor {param} decides: a plain number, as {other} is, changes the dtype only where it is of a higher "
        "kind, so it stays {dtype}"
    ),
    "dtype.over-0d": (
        "{param} has dimensions, so it decides: a 0-d tensor, as {other} ({have}) is, changes the dtype only where it "
        "is of a higher kind, so it stays {dtype}"
    ),
    "dtype.truth": "the answer to each question is true or false: {dtype}",
    "dtype.int64-sum": "{have} is summed up, or multiplied, in {dtype}, which has room for the total",
    "dtype.to-float": (
        "the results are not whole numbers in general, so {have} becomes the session's default dtype, {dtype}"
    ),
    "dtype.real": "complex numbers ({have}) have real results here: {dtype}",
    "dtype.complex": "two {have} numbers make one complex number: {dtype}",
    # -------------------------------------------------------- shape
    "shape.size": "the shape {shape} was asked for",
    "shape.matmul": (
        "the inner sizes of {a} and {b} are equal, {inner}, and disappear: each row is multiplied with each column and "
        "summed; the outer sizes remain: {shape}"
    ),
    "shape.matmul-batch": (
        "the last two dimensions of {a} and {b} are multiplied as matrices, whose inner size, {inner}, disappears; the "
        "dimensions before them are broadcast: {shape}"
    ),
    "shape.matrix-vector": (
        "each row of {a} is multiplied with the vector {b} and summed over its {inner} cells: one number for each row, "
        "{shape}"
    ),
    "shape.vector-matrix": (
        "the vector {a} is multiplied with each column of {b} and summed over its {inner} cells: one number for each "
        "column, {shape}"
    ),
    "shape.dot": "two vectors of {size} cells are multiplied cell by cell and summed into one number, a 0-d tensor",
    "shape.linear": (
        "the last dimension of {a} has {inner} features, as the rows of the weight {b} have; they are multiplied and "
        "summed, and one number for each row of the weight remains: {shape}"
    ),
    "shape.outer": "each cell of {a} is multiplied with each cell of {b}: {shape}",
    "shape.cell-by-cell": "{params} have one shape, {shape}: each cell meets the cell in the same place",
    "shape.single": "{param} is a single number (0-d): it meets every cell of {shape}",
    "shape.missing": (
        "broadcasting: {param} has the shape {have} and the result {shape}; compared from the last dimension, {param} "
        "has no dim {dims}, so it is used {sizes} times along it"
    ),
    "shape.stretched": (
        "broadcasting: {param} has the shape {have} and the result {shape}; along dim {dims} it has the size 1, so it "
        "is used {sizes} times along it"
    ),
    "shape.resized": (
        "the same {count} cells, in the same order, row after row, got the sizes {shape} instead of {have}"
    ),
    "shape.guessed": "-1 was worked out from the {count} cells there are: it is {size}",
    "shape.swapped": "two dimensions changed places, so rows became columns: {have} became {shape}",
    "shape.permuted": "the dimensions of {have} were put in the order {dims}: {shape}",
    # -------------------------------------------------------- dim
    "dim.all": "all {count} cells of {have} were joined into one; a dim would join them along one dimension alone",
    "dim.joined-row": (
        "dim {dim} runs along each row: the {count} cells of a row were joined into one, so {have} became {shape}"
    ),
    "dim.joined-column": (
        "dim {dim} runs down each column: the {count} cells of a column were joined into one, so {have} became {shape}"
    ),
    "dim.joined-vector": (
        "dim {dim} is the only dimension: the {count} cells of the vector were joined into one, so {have} became "
        "{shape}"
    ),
    "dim.joined-other": (
        "dim {dim} has the size {count}: the {count} cells that differ in this index alone were joined into one, so "
        "{have} became {shape}"
    ),
    "dim.joined-several": (
        "the {count} cells that differ in the indices of dims {dims} alone were joined into one, so {have} became "
        "{shape}"
    ),
    "dim.kept": "keepdim left dim {dims} there, with the size 1: {shape}",
    "dim.cat-row": "along dim {dim} the tensors stand side by side: {parts} = {size} columns, {shape}",
    "dim.cat-column": "along dim {dim} the tensors stand one below the other: {parts} = {size} rows, {shape}",
    "dim.cat-vector": "along dim {dim} the tensors stand one after the other: {parts} = {size} cells, {shape}",
    "dim.cat-other": "the sizes of dim {dim} add up, {parts} = {size}, and the others stay: {shape}",
    "dim.stack": "{count} tensors of the shape {have} lie along a new dimension, dim {dim}: {shape}",
    "dim.added": "a new dimension of the size 1 stands at dim {dim}: {have} became {shape}",
    "dim.dropped": "dim {dims} had the size 1 and was dropped: {have} became {shape}",
    "dim.none-dropped": "only dimensions of the size 1 are dropped, and there was none: {have} stayed",
    "dim.along-row": "dim {dim} runs along each row: each row of {count} cells was worked on by itself",
    "dim.along-column": "dim {dim} runs down each column: each column of {count} cells was worked on by itself",
    "dim.along-vector": "dim {dim} is the only dimension: the {count} cells of the vector were worked on together",
    "dim.along-other": "the {count} cells that differ in the index of dim {dim} alone were worked on together",
    "dim.picked-row": "dim {dim} runs along each row, so columns were picked: {have} became {shape}",
    "dim.picked-column": "dim {dim} runs down each column, so rows were picked: {have} became {shape}",
    "dim.picked-vector": "dim {dim} is the only dimension, so cells of the vector were picked: {have} became {shape}",
    "dim.picked-other": "indices of dim {dim} were picked, and the others stayed: {have} became {shape}",
    "dim.cut-row": "dim {dim} runs along each row, so the {count} columns were shared out",
    "dim.cut-column": "dim {dim} runs down each column, so the {count} rows were shared out",
    "dim.cut-vector": "dim {dim} is the only dimension, so the {count} cells of the vector were shared out",
    "dim.cut-other": "the {count} indices of dim {dim} were shared out, and the other dimensions stayed whole",
    # -------------------------------------------------------- device
    "device.given": "the device was asked for: {device}",
    "device.default": "no device was given, so it is the session's, {device}",
    "device.is": "the result is on {device}",
    "device.same": "{param} is on {device}, and results stay where the operands are",
    "device.scalar-joins": "{other} is on {device}; {param}, a 0-d tensor of the CPU, may join tensors of any device",
    # -------------------------------------------------------- memory
    "memory.view": "a view: it has the memory of {param}, so a change in place of one shows in the other",
    "memory.view-of": "a view: it has the memory of {base}, so a change in place of one shows in the other",
    "memory.view-unnamed": "a view of a tensor that has no id any more: it shares that tensor's memory",
    "memory.detached": (
        "it has the memory of {param} without its history: a change in place of one shows in the other, and no "
        "gradient "
        "passes"
    ),
    "memory.repeats": (
        "several of its cells are the same cell of {param}, which was not copied: clone it before changing it in place"
    ),
    "memory.itself": "nothing was to be done: the result is {param} itself, and no copy",
    "memory.inplace": (
        "written into the memory of {param}, which keeps its id; its version is {version} now, and its views show the "
        "change"
    ),
    "memory.copy": "a copy with memory of its own: a later change of {param} does not show in it",
    "memory.copy-reshape": (
        "a copy: the cells of {param} do not lie in memory in the order that {shape} needs (its strides are "
        "{strides}), "
        "so no view was possible, and a later change of {param} does not show in it"
    ),
    "memory.copy-index": (
        "a copy: a list or tensor of indices, or a mask, picks cells that no view can show; numbers and slices alone "
        "would give a view of {param}"
    ),
    # -------------------------------------------------------- requires_grad
    "requires_grad.recorded": "{param} requires grad, so the tape recorded this step as {grad_fn}",
    "requires_grad.leaf": "it is a leaf that requires grad: backward passes gather its gradient",
    "requires_grad.none": "false, since none of its operands requires grad ({params})",
    "requires_grad.whole": "false: results of {dtype} have no slope, so no gradient passes through them",
    "requires_grad.no-grad": "false, although {param} requires grad: with no_grad the tape records nothing",
    "requires_grad.no-rule": "false: no gradient passes through {op}",
    "requires_grad.detached": "false: {param} was detached, so its history ends here",
    "requires_grad.view-no-grad": (
        "it is a view, made with no_grad, of {param}, which requires grad; nothing was recorded"
    ),
    # -------------------------------------------------------- gradients
    "grad.accumulated": "the gradient of {name} is the sum over all backward passes since it was last cleared",
    "grad.whole": "null: {name} is {dtype}, and only floating-point and complex tensors have gradients",
    "grad.not-required": "null: {name} does not require grad, so backward passes gather nothing for it",
    "grad.not-leaf": (
        "null: it was computed ({grad_fn}) and is no leaf; a backward pass goes through it and leaves gradients in "
        "leaves alone (autograd.grad gives one for any tensor)"
    ),
    "grad.unused": (
        "null: nothing that the session still has was computed from {name}, so no backward pass reaches it"
    ),
    "grad.no-backward": (
        "null: {other} was computed from {name}, but there was no backward pass from it yet, or "
        "the gradient was cleared since"
    ),
    "grad.not-reached": (
        "null: the backward pass did not reach {name}, since what it began from does not depend on it"
    ),
    "grad.not-from": (
        "null: the backward pass did not reach {name}; {other}, which was computed from it, is not what it began from"
    ),
    "grad.cleared": (
        "null: {other} was computed from {name} and its tape was used, but the gradient was cleared since, or the pass "
        "was for other inputs (autograd.grad leaves .grad as it is)"
    ),
    "grad.unused-input": "null for {param}: the outputs do not depend on it",
}

# Facts that are words: kinds of numbers (facts whose names end in `_word`), and whose memory it is (`whose`).
WORDS: Mapping[str, str] = {
    "bool": "bool",
    "int": "whole numbers",
    "float": "floating-point numbers",
    "complex": "complex numbers",
    "session": "session",
    "owner": "key",
    "server": "server",
    "device": "device",
}
