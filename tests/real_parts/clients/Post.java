// URL: posts with Java's own client, which offers HTTP/2 with each first request; prints a line of JSON per response.
import java.io.ByteArrayInputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublisher;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.time.Duration;

class Post {
    static HttpClient client = HttpClient.newBuilder().connectTimeout(Duration.ofSeconds(10)).build();
    static URI uri;

    static void post(BodyPublisher body) throws Exception {
        HttpRequest request = HttpRequest.newBuilder(uri).timeout(Duration.ofSeconds(10)).POST(body).build();
        int status = client.send(request, BodyHandlers.ofString()).statusCode();
        System.out.println("{\"status\": " + status + "}");
    }

    public static void main(String[] arguments) throws Exception {
        uri = URI.create(arguments[0]);
        post(BodyPublishers.ofString("hello"));
        post(BodyPublishers.ofString("again"));
        // Its length is unknown, so it is chunked.
        post(BodyPublishers.ofInputStream(() -> new ByteArrayInputStream("in chunks".getBytes())));
        post(BodyPublishers.noBody());
    }
}
