pip install --constraint constraints.txt --editable '.[workflow,tensorboard]'
