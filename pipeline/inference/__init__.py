"""A trained restorer at work: whole images, photographs of users, ONNX, the model card."""
