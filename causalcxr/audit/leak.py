"""What real patients say of the counterfactuals' error in a score.

Let `S_i = (f(x_i(a)) + f(x_i(a'))) / 2`, the score half-way between a patient's two counterfactuals. It is a
function of the patient's noise, and noise does not depend on the attribute. So among patients alike in all
other causes of the image, `S` must not depend on which value the patient has: where it does, the
counterfactuals are too faint, too strong, or changed something else along. A patient's own image is exact, and
therefore

    E[f | A = a'] - E[f | A = a]  =  E[f(x(a')) - f(x(a))] + leak        leak = E[S | A = a'] - E[S | A = a]

with the other causes held. The left side is what real images say, the sum on the right is the shift **checked**
against them: its expectation is the true effect even where the counterfactuals are wrong, at the price of the
difference between people. The leak is the coefficient
of the attribute in the linear regression of `S` on it and the other causes; of a number, a cubic polynomial's
change over the contrast.
"""

from collections.abc import Callable

import numpy as np

__all__ = ["leak_of"]

DEGREE = 3  # of the polynomial in a number


def leak_of(
    middle: np.ndarray, own: np.ndarray, others: np.ndarray, rows: np.ndarray
) -> Callable[[np.ndarray], np.ndarray]:
    """Maps weights of the rows `(R, N)` to the leak `(R,)`.

    `middle` `(N,)`: S. `own` `(N,)`: the patient's own value, 0 for a and 1 for a'; of a number its distance from
    a in units of the contrast. `others` `(N, k)`: the other causes. `rows` `(N,)`, bool: who takes part.
    """
    powers = [own**degree for degree in range(1, 1 + (1 if set(np.unique(own[rows])) <= {0, 1} else DEGREE))]
    design = np.column_stack([np.ones(len(own)), *powers, others - others.mean(axis=0)])[rows]
    k = design.shape[1]
    squares = (design[:, :, None] * design[:, None, :]).reshape(-1, k * k)
    products = design * middle[rows][:, None]

    def leak(weights: np.ndarray) -> np.ndarray:
        chosen = weights[:, rows]
        left = (chosen @ squares).reshape(-1, k, k)
        found = np.einsum("rkl,rl->rk", np.linalg.pinv(left, hermitian=True), chosen @ products)
        return found[:, 1 : 1 + len(powers)].sum(axis=1)  # from 0 to 1

    return leak
