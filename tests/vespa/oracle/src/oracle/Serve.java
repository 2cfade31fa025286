package oracle;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import com.yahoo.application.Networking;
import com.yahoo.application.container.JDisc;
import com.yahoo.application.container.handler.Request;
import com.yahoo.vespa.config.search.DispatchNodesConfig;
import com.yahoo.vespa.model.search.IndexedSearchCluster;

import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;

/** Runs the container cluster of a package without embedders in this JVM, with a fake search node behind it. */
class Serve {

    private static JDisc container;
    private static FakeProton proton;

    static void start(App app, JsonNode r, ObjectNode reply) throws Exception {
        stop();
        Path from = Path.of(r.get("app").asText()), to = Files.createTempDirectory("oracle-serve");
        try (var files = Files.walk(from)) {
            for (Path p : (Iterable<Path>) files::iterator) {
                if (p.toString().contains("/.preprocessed")) continue;
                Path target = to.resolve(from.relativize(p).toString());
                if (Files.isDirectory(p)) Files.createDirectories(target); else Files.copy(p, target);
            }
        }
        String services = Files.readString(to.resolve("services.xml"))
                .replaceFirst("(<container[^>]*>)", "$1<config name=\"vespa.config.search.dispatch\"><warmuptime>0</warmuptime></config>");
        Files.writeString(to.resolve("services.xml"), services);
        var nodes = new DispatchNodesConfig.Builder();
        ((IndexedSearchCluster) app.model.getSearchClusters().get(0)).getConfig(nodes);
        var node = nodes.build().node(0);
        proton = new FakeProton(node.port(), node.key());
        // as Application.fromApplicationPackage, but with the content clusters of our own model
        container = JDisc.fromPath(to, Networking.disable, app.model.configModelRepo());
        reply.put("backendPort", node.port());
    }

    /** hits: what the search node answers, in its order. body: of a query. */
    static void search(JsonNode r, ObjectNode reply) throws Exception {
        proton.hits = r.get("hits");
        proton.requests.clear();
        byte[] body = Main.json.writeValueAsBytes(r.get("body"));
        var request = new Request("http://localhost/search/", body, Request.Method.POST);
        request.getHeaders().put("Content-Type", "application/json");
        var response = container.handleRequest(request);
        reply.put("status", response.getStatus());
        reply.set("body", Main.json.readTree(response.getBodyAsString()));
        reply.putArray("backend").addAll(proton.requests);
    }

    static void stop() {
        if (container != null) container.close();
        if (proton != null) proton.close();
        container = null; proton = null;
    }
}
