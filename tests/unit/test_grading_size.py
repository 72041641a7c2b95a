"""Numbers that are too large to be worked out, seen in the text; and those that are not."""

import time

import pytest

from mulligan.grading.size import may_take_long, too_large


@pytest.mark.parametrize(
    "text",
    [
        "9^{9^{9^9}}", "9^9^9", "9^{9^{9}}", "2^{10^{7}}", "-2^{-10^{7}}", r"10^{10^{10}}", r"\left(\frac{2}{3}\right)^{10^{8}}", r"0.5^{10^{8}}", "(10^9)!", "(9!)!",
        "(((3!)!)!)!", "1000000!", r"\binom{10^{9}}{10^{6}}", r"\frac{1}{9^{9^{9}}}", r"\sin(9^{9^{9}})", r"x + 9^{9^{9}}", r"x^{9^{9^{9}}}", r"\{1, 9^{9^{9}}\}", r"[0, 9^{9^{9}})",
        r"\begin{pmatrix} 1 & 9^{9^{9}} \\ 2 & 3 \end{pmatrix}", r"x = 9^{9^{9}}", r"\sqrt{9^{9^{9}}}", r"\sqrt[3]{9^{9^{9}}}", r"7^{10^{18}} \bmod 1000003", r"\left(2\cdot 3^{4}\right)^{10^{6}}",
        "2^{" * 40 + "2" + "}" * 40, r"1+(2+3)^{9999999}", "10^{999999999}", ") 9^{9^9}", r"\frac{(10^8)!}{(10^8-1)!}",
    ],
)  # fmt: skip
def test_too_large(text):
    assert too_large(text)


@pytest.mark.parametrize(
    "text",
    [
        "7", "", "2^{99}", "2^{1000}", "10^{100}", "3^{3^{3}}", "2^{2^{10}}", "100!", "1000!", r"\binom{100}{50}", r"\binom{10^{12}}{2}", "x^{2024}", "x^{99999}-1", "e^{10^{6}}", r"\pi^{10^{9}}",
        "1^{10^{10}}", "(-1)^{10^{10}}", "0^{10^{9}}", r"a_{10}^{2}", r"10^{-9}", r"1.5 \times 10^{23}", r"\frac{1}{2^{99}}", r"2^{\frac{1}{2}}", r"\sqrt[3]{2}", "n!", "(n+1)!", "2^n", "^", "^^^", "!",
        "}}}}", "{{{{", r"\frac", r"\binom{5}", r"\sqrt[", "2^", "(2^3", r"\text{yes!}", r"f^{-1}(x)", r"30^\circ", r"2^{3}\cdot 5^{2}", "99^{99}", "(" * 500 + "9^{9^{9}}" + ")" * 500,
    ],
)  # fmt: skip
def test_not_too_large(text):
    assert not too_large(text)


@pytest.mark.parametrize("text", ["9^" * 4_000 + "x", "{" * 5_000 + "^", "x!" * 5_000, "(" * 99 + "1" + ")^1" * 99, r"\frac" * 1_900 + "^", "2^{1}" * 1_900])
def test_linear(text):
    start = time.perf_counter()
    too_large(text)
    assert time.perf_counter() - start < 0.25


def test_may_take_long():
    assert may_take_long(r"\sum_{n=1}^{9} n") and may_take_long(r"2\int_0^1 x") and may_take_long(r"\lim_{x}")
    assert may_take_long("(a+b)^{99}") and may_take_long("(a+b)^12") and may_take_long("((x+1)^9+1)^{9}") and may_take_long(r"\begin{pmatrix}1\end{pmatrix}^{9}")
    assert not may_take_long("(x+1)^2(x-1)^3") and not may_take_long("x^{2024}+1")
    assert not may_take_long(r"\sqrt{2}") and not may_take_long(r"\internal") and not may_take_long("sum")
