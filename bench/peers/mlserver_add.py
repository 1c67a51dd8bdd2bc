"""The same small addition in MLServer: python bench/peers/mlserver_add.py PORT."""

from __future__ import annotations

import asyncio
import sys

import numpy as np
from mlserver import MLModel, MLServer, ModelSettings, Settings  # type: ignore[import-not-found]
from mlserver.codecs import NumpyCodec  # type: ignore[import-not-found]
from mlserver.types import InferenceRequest, InferenceResponse  # type: ignore[import-not-found]


class Add(MLModel):  # type: ignore[misc]
    """Adds two arrays of float32."""

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        left, right = (NumpyCodec.decode_input(one) for one in payload.inputs)
        return InferenceResponse(
            model_name=self.name, outputs=[NumpyCodec.encode_output("output", np.add(left, right))]
        )


async def main(port: int) -> None:
    """Serves the one model, in the server's own process."""
    settings = Settings(
        debug=False, host="127.0.0.1", http_port=port, grpc_port=port + 1, metrics_endpoint=None, parallel_workers=0
    )
    server = MLServer(settings)
    await server.start([ModelSettings(name="add", implementation=Add)])


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
