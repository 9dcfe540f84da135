NOT_LINEAR = {
    "positive": lambda g: jnp.maximum(g, 0),
    "at most 1": lambda g: jnp.minimum(g, 1),
    "size": jnp.abs,
    "cube": lambda g: g**3,
    "sign": jnp.sign,
    "forgotten": jnp.ones_like,
}


@pytest.mark.parametrize("seed", often(range(2), [0]))
def test_a_rule_that_is_not_linear_in_its_cotangent_is_wrong(seed):
    """One leaf has the right rule, and each other leaf applies a nonlinear function to the cotangent."""
    factors = {"right": lambda g: g, **NOT_LINEAR}
    rules = {
        name: with_rule(squares, lambda inputs, g, of=of: (2 * inputs[0] * of(g),)) for name, of in factors.items()
    }
    report = check_gradients(
        lambda p: sum(rule(p[name]) for name, rule in rules.items()), dict.fromkeys(rules, X), seed=seed
    )
    assert {leaf.name: leaf.verdict for leaf in report.leaves} == {
        f"p['{name}']": "right" if name == "right" else "wrong" for name in rules
    }
    assert "the rule ignores its cotangent" in report.leaf("p['forgotten']").pattern


def test_a_clipped_cotangent_is_wrong_even_if_none_is_clipped():
    clipped = with_rule(lambda x: x * 1.0, lambda _, g: (jnp.clip(g, -10, 10),))
    for factor in (1, 100):
        report = check_gradients(lambda x, factor: factor * clipped(x), X, traced(factor))
        assert report.verdict == "wrong"
        assert any(check.name == "autodiff is linear" for check in report.leaves[0].checks)
