"""Faults to put into a good package: file, text, what replaces it once, and what our error says."""

__all__ = ["FAULTS", "SCHEMA"]

SCHEMA = "schemas/passage.sd"
FAULTS = {
    "undeclared input": (SCHEMA, "            query(qt) tensor<float>(qt{}, x[16])\n", "", r"query\(qt\) is not declared"),
    "input of another size": (SCHEMA, "query(qt) tensor<float>(qt{}, x[16])", "query(qt) tensor<float>(qt{}, x[8])", "16 dim"),
    "unknown function": (SCHEMA, "expression: max_sim\n", "expression: maxsim\n", "'maxsim' is not a function"),
    "unknown attribute": (SCHEMA, "attribute(vectors)", "attribute(vector)", "does not name a field"),
    "bm25 of no text": (SCHEMA, "bm25(title)", "bm25(kind)", "enable-bm25"),
    "bm25 of nothing": (SCHEMA, "bm25(title)", "bm25(titel)", "does not name a field"),
    "closeness of nothing": (SCHEMA, "closeness(field, pooled)", "closeness(field, pool)", "does not name a field"),
    "not an attribute": (SCHEMA, "attributeMatch(centroids)", "attributeMatch(text)", "indexing: attribute"),
    "reserved name": (SCHEMA, "field kind type", "field documentid type", "reserved"),
    "name twice": (SCHEMA, "field kind type", "field Title type", "declared twice"),
    "unknown type": (SCHEMA, "field year type long", "field year type number", "type 'number'"),
    "unknown cells": (SCHEMA, "tensor<bfloat16>(dt{}, x[16])", "tensor<float16>(dt{}, x[16])", "cell type 'float16'"),
    "no size": (SCHEMA, "type tensor<float>(x[16])", "type tensor<float>(x[])", "dimensions"),
    "another codec": (SCHEMA, "tensor<bfloat16>(dt{}, x[16])", "tensor<float>(dt{}, x[16])", "for codec bfloat16"),
    "metadata of another type": (SCHEMA, "field year type long", "field year type double", "year must exist with type long"),
    "unknown parent": (
        SCHEMA,
        "rank-profile bm25 inherits late_interaction",
        "rank-profile bm25 inherits none",
        "inherits 'none'",
    ),
    "no expression": (SCHEMA, "            expression: attributeMatch(centroids).totalWeight\n", "", "has no expression"),
    "parentheses": (SCHEMA, "bm25(title) + bm25(text)", "(bm25(title) + bm25(text)", "parentheses"),
    "too many threads": (SCHEMA, "num-threads-per-search: 2", "num-threads-per-search: 4", "persearch"),
    "match feature": (SCHEMA, "match-features: firstPhase", "match-features: query(other)", "not declared"),
    "open block": (SCHEMA, "    fieldset default {", "    fieldset default", "closing brace too many"),
    "another document": (SCHEMA, "document passage {", "document passages {", "must contain schema passage"),
    "services: no XML": ("services.xml", "</services>", "", "is not XML"),
    "services: another document": ("services.xml", 'type="passage"', 'type="passages"', "services.xml does not"),
    "services: another model": ("services.xml", ".onnx", "_other.onnx", "_other.onnx, listed in services.xml, is missing"),
    "description": ("colbert-vespa.json", '"version": 2', '"version": 99', "version 99"),
    "description: no JSON": ("colbert-vespa.json", "{", "", "description .* cannot be read: it is not JSON"),
    "description: setting": ("colbert-vespa.json", '"codec"', '"kodec"', "setting kodec: is unknown"),
}
