import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.extract.bounds import count_tags, depth


@pytest.mark.parametrize(
    ("html", "nodes", "nesting"),
    [
        (b"", 0, 0),
        (b"no tags, 1 < 2", 0, 0),
        (b"<p>one", 1, 1),
        (b"<div><p>one</p><p>two</p></div>", 3, 2),
        (b"<DIV><P>one</p></Div><div></div>", 3, 2),
        (b"<p>one<p>two<p>three", 3, 1),
        (b"<ul><li>a<li>b</ul>", 3, 2),
        (b"a<br>b<br>c<img src=x><hr/>", 4, 0),
        (b"<b>" * 50, 50, 50),
        (b"</b>" * 9 + b"<i>" * 3, 3, 3),
        (b"<div></span></div><div>", 2, 1),
        (b"<!-- <b><b><b> --><p>x</p>", 1, 1),
        (b"<div><!-- </div> --><div>", 2, 2),
        (b"<script>if (a<b) document.write('<i></script ><p>x</p>", 2, 1),
        (b"<div><STYLE>.a{}</div></style><div>", 3, 2),
        (b"<my-element-a></my-element-b><my-element-a>", 2, 2),
        (b"<svg><path/><path/></svg>", 3, 1),
        (b"<div><b>crossed</div></b><p>", 3, 2),
    ],
)
def test_nodes_and_depth(html: bytes, nodes: int, nesting: int) -> None:
    counted, bound = count_tags(html)
    assert counted == nodes
    assert depth(html, 10**9) == nesting
    assert bound >= nesting


TAGS = st.lists(
    st.sampled_from(
        [
            b"<div>",
            b"</div>",
            b"<p>",
            b"</p>",
            b"<b>",
            b"</b>",
            b"</i>",
            b"<br>",
            b"x",
            b"<",
            b"<!--",
            b"-->",
            b"<script>",
            b"</script>",
        ]
    ),
    max_size=60,
)


@settings(max_examples=300)
@given(html=TAGS.map(b"".join))
def test_the_cheap_bound_is_never_below_the_depth(html: bytes) -> None:
    assert count_tags(html)[1] >= depth(html, 10**9)


@given(html=TAGS.map(b"".join), enough=st.integers(1, 10))
def test_counting_stops_where_it_is_enough(html: bytes, enough: int) -> None:
    assert depth(html, enough) == min(enough, depth(html, 10**9))
