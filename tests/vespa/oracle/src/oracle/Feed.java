package oracle;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonFactoryBuilder;
import com.fasterxml.jackson.core.StreamReadConstraints;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import com.yahoo.document.DocumentOperation;
import com.yahoo.document.DocumentPut;
import com.yahoo.document.DocumentRemove;
import com.yahoo.document.DocumentTypeManager;
import com.yahoo.document.DocumentUpdate;
import com.yahoo.document.config.DocumentmanagerConfig;
import com.yahoo.document.json.DocumentOperationType;
import com.yahoo.document.json.JsonReader;
import com.yahoo.document.json.JsonWriter;
import com.yahoo.document.serialization.DocumentSerializerFactory;
import com.yahoo.io.GrowableByteBuffer;
import com.yahoo.vespa.documentmodel.DocumentModel;

import java.io.ByteArrayInputStream;
import java.nio.charset.StandardCharsets;

class Feed {

    // As DocumentV1ApiHandler
    private static final JsonFactory factory = new JsonFactoryBuilder()
            .streamReadConstraints(StreamReadConstraints.builder().maxStringLength(Integer.MAX_VALUE).build()).build();

    static DocumentTypeManager types(App app) {
        DocumentModel documents = app.state.getDocumentModel();
        return new DocumentTypeManager(new com.yahoo.vespa.configmodel.producers.DocumentManager()
                                               .produce(documents, new DocumentmanagerConfig.Builder()).build());
    }

    /** "op" is a feed operation line ({"put": id, "fields": ..}), or a /document/v1 body with "id" and "method" given. */
    static void run(App app, JsonNode r, ObjectNode reply) throws Exception {
        var types = types(app);
        byte[] body = (r.get("op").isTextual() ? r.get("op").asText() : Main.json.writeValueAsString(r.get("op"))).getBytes(StandardCharsets.UTF_8);
        DocumentOperation op;
        if (r.has("id")) {
            var parsed = new JsonReader(types, new ByteArrayInputStream(body), factory)
                    .readSingleDocumentStreaming(DocumentOperationType.valueOf(r.path("method").asText("PUT")), r.get("id").asText());
            reply.put("fullyApplied", parsed.fullyApplied());
            op = parsed.operation();
        } else {
            var list = new byte[body.length + 2];
            list[0] = '['; System.arraycopy(body, 0, list, 1, body.length); list[list.length - 1] = ']';
            op = new JsonReader(types, new ByteArrayInputStream(list), factory).next();
        }
        if (op instanceof DocumentPut put) {           // over the wire and back, as what content nodes get: int8 cells out of range wrap here
            var buffer = new GrowableByteBuffer();
            DocumentSerializerFactory.createHead(buffer).write(put.getDocument());
            buffer.flip();
            op = new DocumentPut(put, types.createDocument(buffer));
        }
        put(reply, op);
    }

    private static void put(ObjectNode reply, DocumentOperation op) throws Exception {
        if (op instanceof DocumentPut put) reply.set("document", Main.json.readTree(JsonWriter.toByteArray(put.getDocument())));
        if (op instanceof DocumentUpdate update) reply.put("update", update.toString());
        reply.put("operation", op.getClass().getSimpleName() + " " + op.getId() +
                               (op.getCondition().isPresent() ? " if " + op.getCondition().getSelection() : "") +
                               (op instanceof DocumentUpdate u ? " create=" + u.getCreateIfNonExistent() : ""));
    }
}
