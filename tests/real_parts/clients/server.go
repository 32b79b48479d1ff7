// A server with net/http: three events for each connection, and 204 after the ninth.
package main

import (
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"
)

func stream(writer http.ResponseWriter, request *http.Request) {
	last, _ := strconv.Atoi(request.Header.Get("Last-Event-ID"))
	if last >= 9 {
		writer.WriteHeader(http.StatusNoContent)
		return
	}
	writer.Header().Set("Content-Type", "text/event-stream")
	for id := last + 1; id <= last+3; id++ {
		eventType := "message"
		if id%2 == 1 {
			eventType = "odd"
		}
		text := fmt.Sprintf("retry: 1\nid: %d\nevent: %s\ndata: event %d ✅\n\n", id, eventType, id)
		// A byte at a time.
		for index := range []byte(text) {
			writer.Write([]byte{text[index]})
			writer.(http.Flusher).Flush()
			time.Sleep(time.Millisecond)
		}
	}
	fmt.Fprintf(writer, "id: %d\ndata: unfinished", last+4)
	writer.(http.Flusher).Flush()
	// Breaks the connection.
	panic(http.ErrAbortHandler)
}

func main() {
	http.HandleFunc("/stream", stream)
	http.Handle("/redirect", http.RedirectHandler("/stream", http.StatusMovedPermanently))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Printf("listening on http://%s\n", listener.Addr())
	panic(http.Serve(listener, nil))
}
