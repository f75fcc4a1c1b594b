// The output of one generation, kept for its readers.

#ifndef FERMATA_ENGINE_RUNTIME_TOKEN_LOG_H_
#define FERMATA_ENGINE_RUNTIME_TOKEN_LOG_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/strings/string_view.h"
#include "engine/core/generation_info.h"
#include "engine/core/generation_state.h"
#include "engine/core/ids.h"
#include "engine/core/model_runner.h"

namespace fermata {

// Tokens with consecutive offsets, and the text that they released; or no tokens, and text that was held back until
// the finish. The text of a token is the same in every replay.
struct LogChunk {
  int64_t offset = 0;  // of the first token; without tokens: of the next one to come
  std::vector<TokenId> tokens;
  std::string text;
  std::vector<TokenLogprobs> logprobs;  // one for each token, or none
  int64_t step = 0;                     // of the last token
};

// The generation's state has changed.
struct LogNotice {
  GenerationState state = GenerationState::kNone;
  int64_t step = 0;  // last completed step when it did
  std::string reason;
};

// The end. Nothing follows.
struct LogFinish {
  GenerationInfo info;
};

// The end of this process, not of the generation, which another process may go on with. Nothing follows.
struct LogClosed {};

// Append-only, so every reader sees the same, however often and from wherever it reads. One thread appends (the
// publisher's), any number of readers read, each at its own pace: a reader is a cursor, and a slow one costs nobody
// anything. Memory is bounded by the generation's max_tokens and the readers that are there.
class TokenLog {
 public:
  // Where a reader is. Made by Enter().
  struct Cursor {
    int64_t reader = 0;  // tells readers apart
    int64_t token = 0;   // next token wanted
    size_t text = 0;     // bytes of text had
    int64_t notice = 0;  // next notice wanted
    bool finished = false;
  };

  // Nothing: all there is has been read.
  using Item = std::variant<std::monostate, LogChunk, LogNotice, LogFinish, LogClosed>;

  // A longer chunk is cut, so that a message stays small.
  static constexpr int64_t kMaxChunkTokens = 1024;

  // Of so many notices the last are kept: a reader that is further behind misses the older ones, never a token.
  static constexpr size_t kMaxNotices = 64;

  // For the publisher. Each append says whether a reader waits for what it brought: then WakeReaders() is to follow.

  bool AppendToken(TokenId token, absl::string_view text, int64_t step, std::optional<TokenLogprobs> logprobs);
  bool AppendText(absl::string_view text);

  // `change` is the present state from now on. `announced`: readers get it as a notice, after the tokens so far.
  bool AppendState(LogNotice change, bool announced);
  bool AppendFinish(GenerationInfo info);

  // Nothing comes any more. After a finish: no change.
  void Close();

  // Calls whoever waits, each once. Called after the appends of a report, without any lock held.
  void WakeReaders();

  // For readers. Each Enter() is paired with a Leave().

  // A cursor before token `offset`; notices so far are past, since present() says what they came to. REQUIRES: offset
  // is at most the tokens so far.
  Cursor Enter(int64_t offset);

  // The next item for `cursor`, which moves on. If there is none, `wake` is kept and called once when there may be one,
  // on the publisher's thread; it must not block.
  Item Read(Cursor& cursor, std::function<void()> wake);

  // Drops what is kept for the reader. Its `wake` may be under way on another thread, and is not called later.
  void Leave(const Cursor& cursor);

  // The generation's state as of the last append.
  LogNotice present() const;

 private:
  struct PlacedNotice {
    LogNotice notice;
    int64_t token;  // comes after so many tokens
  };

  // Both need mutex_.
  LogChunk ReadTokens(Cursor& cursor, int64_t end) const;
  LogChunk ReadHeldText(Cursor& cursor) const;

  mutable std::mutex mutex_;
  // All guarded by mutex_.
  std::vector<TokenId> tokens_;
  std::vector<size_t> text_ends_;  // of text_, after each token
  std::vector<int64_t> steps_;
  std::vector<TokenLogprobs> logprobs_;  // as long as tokens_, or empty
  std::string text_;
  LogNotice present_;
  std::deque<PlacedNotice> notices_;
  int64_t first_notice_ = 0;  // the number of notices_[0]
  std::optional<LogFinish> finish_;
  bool closed_ = false;
  int64_t next_reader_ = 1;
  std::map<int64_t, std::function<void()>> waiting_;  // by Cursor::reader
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_RUNTIME_TOKEN_LOG_H_
