#!/bin/sh
# A beginner's tour with curl. Start the service first (make serve), then: sh examples/first_steps.sh
# Every line that begins with `say` is a sentence of the book; every curl below it is the same in curlgrad.
set -eu
URL=${CURLGRAD_URL:-http://127.0.0.1:8000}/v1
export CURLGRAD_SESSION="first-steps-$$"
call() { curl --silent --show-error --fail-with-body --header "Curlgrad-Session: $CURLGRAD_SESSION" "$@"; echo; }
say() { printf '\n# %s\n' "$*"; }
trap 'curl --silent --request DELETE "$URL/sessions/$CURLGRAD_SESSION" >/dev/null' EXIT

curl --silent --fail-with-body --data "{\"name\": \"$CURLGRAD_SESSION\", \"seed\": 1234}" "$URL/sessions"
echo

say "a tensor from a list, called x, and what print(x) shows"
call --data '{"data": [[1, 2], [3, 4.5]], "name": "x"}' "$URL/tensors"
call "$URL/tensors/x?as=text"

say "random numbers, the same as torch.manual_seed(1234); torch.randn(2, 3)"
call --data seed=1234 "$URL/ops/manual_seed"
call --data size=[2,3] --data out_name=r "$URL/ops/randn"
call "$URL/tensors/r?as=text"

say "x * 2 + 1"
call --data '{"input": "x", "other": 2, "out_name": "y"}' "$URL/ops/mul"
call --data '{"input": "y", "other": 1, "out_name": "y"}' "$URL/ops/add"

say "the sum of each row: dim 1 is the one that disappears"
call --data '{"input": "y", "dim": 1}' "$URL/ops/sum"

say "a view shares memory with its base: filling the view changes x"
call --data '{"input": "x", "index": [0], "out_name": "row"}' "$URL/ops/getitem"
call --data '{"input": "row", "value": 7}' "$URL/ops/fill_"
call "$URL/tensors/x?as=text"

say "x as a picture: open $URL/tensors/x/image?session=$CURLGRAD_SESSION in a browser, while this runs; here its first words"
call "$URL/tensors/x/image?as=svg" | grep -o '<text.*text>' | head -n 2

say "a mistake, and what the answer says: integers times floats"
curl --silent --header "Curlgrad-Session: $CURLGRAD_SESSION" --data '{"input": [[1, 2]], "mat2": [[0.5], [1.5]]}' "$URL/ops/mm"
echo

say "gradients: w requires grad, loss = (w * w).sum(), loss.backward(), w.grad is 2 * w"
call --data '{"data": [1.5, -2, 0.25], "requires_grad": true, "name": "w"}' "$URL/tensors"
call --data '{"input": "w", "other": "w", "out_name": "squares"}' "$URL/ops/mul"
call --data '{"input": "squares", "out_name": "loss"}' "$URL/ops/sum"
call --request POST "$URL/tensors/loss/backward"
call "$URL/tensors/w/grad?as=text"

say "the same as one program: everything happens, or nothing does"
call --data '{"steps": [
  {"op": "mul", "args": {"input": "w", "other": "w"}, "out": "s"},
  {"op": "sum", "args": {"input": "s"}, "out": "loss"},
  {"op": "autograd.grad", "args": {"outputs": ["loss"], "inputs": ["w"]}, "out": ["g"]}],
  "return": ["loss", "g"]}' "$URL/programs"
