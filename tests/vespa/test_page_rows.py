"""A page image of 2,000 rows of 128, put into an application without a model: Vespa's code reads it and scores it as we do."""

import pytest
from golden.make_packages import golden_package
from ready import unit_rows

from late_interaction.documents import Document, Passage
from late_interaction.maxsim import maxsim
from vespa_app.codecs import CODECS
from vespa_app.running.documents import document_fields

pytestmark = pytest.mark.oracle


def test_a_page_of_2000_rows(vespa_oracle, tmp_path):
    package = golden_package("ready", tmp_path)
    app = package.write(tmp_path / "app")
    D, Q = unit_rows(2000, 1, 128), unit_rows(32, 2, 128)
    fields = document_fields([Passage.of(Document("page", vectors=D))], [D], package.description.settings)
    reply = vespa_oracle.ask("feed", app=str(app), op={"fields": fields}, id="id:colbert:passage::page#0", method="PUT")
    assert reply["ok"] and reply["fullyApplied"], reply
    vectors = (app / "schemas/passage.sd").read_text().partition("field vectors type ")[2].partition(" {\n")[0]
    reply = vespa_oracle.ask(
        "profile",
        app=str(app),
        schema="passage",
        profile="exhaustive",
        function="max_sim",
        inputs={
            "query(qt)": {"type": "tensor<float>(qt{}, x[128])", "value": {str(n): row.tolist() for n, row in enumerate(Q)}},
            "attribute(vectors)": {"type": vectors, "value": fields["vectors"]},
        },
    )
    assert reply["ok"], reply
    codec = CODECS["bfloat16"]
    assert reply["result"] == pytest.approx(maxsim(Q, codec.decode(codec.encode(D))), abs=1e-3)
