"""detectron2: Mask R-CNNs of its configurations behind labelloop's InstanceModel.

Nothing here imports detectron2 before such a model is built; labelloop does not bring it.
"""
