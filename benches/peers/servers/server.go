// A server with net/http: a goroutine and a channel of 1,024 events for each stream.
package main

import (
	"io"
	"net/http"
	"os"
	"sync"
)

var (
	lock    sync.RWMutex
	streams = map[chan string]struct{}{}
)

func subscribe(writer http.ResponseWriter, request *http.Request) {
	events := make(chan string, 1024)
	lock.Lock()
	streams[events] = struct{}{}
	lock.Unlock()
	defer func() {
		lock.Lock()
		delete(streams, events)
		lock.Unlock()
	}()
	writer.Header().Set("Content-Type", "text/event-stream")
	writer.Header().Set("Cache-Control", "no-cache")
	flusher := writer.(http.Flusher)
	flusher.Flush()
	for {
		select {
		case event := <-events:
			if _, err := io.WriteString(writer, event); err != nil {
				return
			}
			flusher.Flush()
		case <-request.Context().Done():
			return
		}
	}
}

func publish(writer http.ResponseWriter, request *http.Request) {
	body, err := io.ReadAll(request.Body)
	if err != nil {
		http.Error(writer, err.Error(), http.StatusBadRequest)
		return
	}
	event := "data: " + string(body) + "\n\n"
	lock.RLock()
	for events := range streams {
		select {
		case events <- event:
		default: // The client is too slow, and misses the event.
		}
	}
	lock.RUnlock()
	writer.WriteHeader(http.StatusNoContent)
}

func main() {
	http.HandleFunc("/events", func(writer http.ResponseWriter, request *http.Request) {
		if request.Method == http.MethodPost {
			publish(writer, request)
		} else {
			subscribe(writer, request)
		}
	})
	panic(http.ListenAndServe("127.0.0.1:"+os.Args[1], nil))
}
