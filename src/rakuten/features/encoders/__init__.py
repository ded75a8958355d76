"""Encoders: an image or a text in, an embedding out.

factory              the encoders that params.yaml selects
onnx                 the encoders, all on onnxruntime
preprocessing        crop and resize of an image
efficientnet_lite0   graph of the packaged image encoder
use_multilingual     graph and tokens of the packaged text encoder
"""
