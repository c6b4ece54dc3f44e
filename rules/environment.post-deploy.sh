cd "$SINGFLOW_CHECKOUT" && pip install --constraint constraints.txt --editable '.[workflow]'
