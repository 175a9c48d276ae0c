"""One Spark session for the whole run, started when the first test asks for it."""

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def spark() -> Iterator[object]:
    from pipelines.spark import session

    started = session(
        "local[2]", app="headrace-tests", settings={"spark.driver.memory": "1g", "spark.sql.shuffle.partitions": "3"}
    )
    yield started
    started.stop()
