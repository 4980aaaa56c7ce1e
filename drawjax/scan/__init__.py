"""A scan that takes the weight gradients of its matrix products out of the loop.

The gradient of a recurrent network by `jax.lax.scan` computes dW += x_t^T dy_t at every step: T
thin products, each reading and writing the whole of dW. Here the loop keeps the inputs x_t and
the cotangents dy_t, and one product over steps and batch gives dW after it::

    forward     state -> [ y_t = x_t W + b + probe_t ] -> state     keeps x_t and y_t of each step
                                       |
    backward    state <- [ dy_t arrives at probe_t   ] <- state     W is a constant: no dW in here
                                       |
    after it    dW = sum_t x_t^T dy_t,  db = sum_t dy_t             one product, [T * batch] long

A probe is an input of zeros, one for each step, added to a product's output: what `jax.vjp` gives
for it is dy_t. Of the forward pass only the products' outputs, the carry and values with a
`checkpoint_name` are stored; what lies between is elementwise or small, and is computed again in
the backward pass rather than read back from memory. Over several devices the sum of dW across them
happens once, not once a step. Products of the same inputs are computed as one, and their inputs are
kept once.

The body asks for its products by `dense`, as the layers of `drawjax.modules` do:

>>> def body(hidden, x):
...     hidden = jnp.tanh(dense(jnp.concatenate([x, hidden], -1), kernel, bias))
...     return hidden, hidden
>>> hidden, ys = scan(body, hidden, xs)

A product is taken out of the loop if `dense` is called by the body itself, not inside a `jit`,
`vmap` or `cond` within it, and if its kernel and bias come from outside of the loop. All others,
and products written with `@`, get the gradients that `jax.lax.scan` gives them: right, and slower.

`products` is how a body asks, `deferral` what the picture shows. Two options are files of their
own: `blocks` recomputes the steps in blocks (`remat`), and `clipping` scales the gradient of each
image before all are summed (`clip_ratio`), which can be done since dy_t is still there for each.

Axes: `T` steps, `*batch` any leading shape, `inputs` and `outputs` of a product.
"""

from drawjax.scan.deferral import scan
from drawjax.scan.products import dense, product, vary_like

__all__ = ["dense", "product", "scan", "vary_like"]
