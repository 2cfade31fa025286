package oracle;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import com.yahoo.prelude.Index;
import com.yahoo.prelude.IndexFacts;
import com.yahoo.prelude.IndexModel;
import com.yahoo.prelude.SearchDefinition;
import com.yahoo.prelude.query.AndItem;
import com.yahoo.prelude.query.BoolItem;
import com.yahoo.prelude.query.CompositeItem;
import com.yahoo.prelude.query.FalseItem;
import com.yahoo.prelude.query.GeoLocationItem;
import com.yahoo.prelude.query.IntItem;
import com.yahoo.prelude.query.Item;
import com.yahoo.prelude.query.NotItem;
import com.yahoo.prelude.query.OrItem;
import com.yahoo.prelude.query.TrueItem;
import com.yahoo.prelude.query.WordItem;
import com.yahoo.search.query.parser.Parsable;
import com.yahoo.search.query.parser.ParserEnvironment;
import com.yahoo.search.yql.YqlParser;

import java.util.List;
import java.util.Map;

/** The tree that Vespa's own YQL parser makes of a query. `words`: names of attributes with `match: word`, as texts have. */
class Yql {

    static void run(JsonNode r, ObjectNode reply) {
        SearchDefinition schema = new SearchDefinition("passage");
        for (JsonNode name : r.get("words")) {
            Index index = new Index(name.asText());
            index.addCommand("string");
            index.addCommand("attribute");
            index.addCommand("word");
            schema.addIndex(index);
        }
        for (JsonNode name : r.get("numbers")) {
            Index index = new Index(name.asText());
            index.addCommand("numerical");
            index.addCommand("attribute");
            schema.addIndex(index);
        }
        for (JsonNode name : r.get("places")) {
            Index index = new Index(name.asText());
            index.addCommand("attribute");
            schema.addIndex(index);
        }
        IndexFacts facts = new IndexFacts(new IndexModel(Map.of("content", List.of("passage")), List.of(schema)));
        YqlParser parser = new YqlParser(new ParserEnvironment().setIndexFacts(facts));
        ArrayNode trees = reply.putArray("trees");
        for (JsonNode yql : r.get("yql"))
            trees.add(tree(parser.parse(new Parsable().setQuery(yql.asText())).getRoot()));
    }

    private static ArrayNode tree(Item item) {
        ArrayNode out = Main.json.createArrayNode();
        if (item instanceof NotItem) children(out.add("and not"), (CompositeItem) item);
        else if (item instanceof AndItem) children(out.add("and"), (CompositeItem) item);
        else if (item instanceof OrItem) children(out.add("or"), (CompositeItem) item);
        else if (item instanceof TrueItem) out.add("true");
        else if (item instanceof FalseItem) out.add("false");
        else if (item instanceof WordItem word) out.add("word").add(word.getIndexName()).add(word.getWord());
        else if (item instanceof IntItem number) out.add("number").add(number.getIndexName()).add(number.getNumber());
        else if (item instanceof GeoLocationItem place)
            out.add("near").add(place.getIndexName()).add(place.getLocation().degNS()).add(place.getLocation().degEW())
               .add(place.getLocation().degRadius());
        else if (item instanceof BoolItem bool) out.add("bool").add(bool.getIndexName()).add(bool.value());
        else out.add(item == null ? "nothing" : item.getClass().getSimpleName()).add(String.valueOf(item));
        return out;
    }

    private static void children(ArrayNode out, CompositeItem parent) {
        for (Item item : parent.items()) out.add(tree(item));
    }
}
