// Writes the beginnings of the fuzzers' corpora, one small input for each thing that they know. usage: make_corpus
// FOLDER, which gets a folder for each fuzzer.

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/runtime/kv_file.h"
#include "glog/logging.h"
#include "proto/fermata/v1/control_service.pb.h"
#include "proto/fermata/v1/inference_service.pb.h"
#include "tests/fakes/gguf_writer.h"

namespace fermata {
namespace {

using Corpus = std::map<std::string, std::string>;  // inputs by name

// The smallest model that runs: eight channels, four tokens.
GgufWriter Model(int32_t layers, const std::string& pretokenizer, const std::string& chat_template) {
  constexpr int64_t kSize = 8;
  GgufWriter writer;
  writer.AddString("general.architecture", "llama");
  writer.AddString("general.name", "least");
  writer.AddInt("llama.block_count", layers);
  writer.AddInt("llama.context_length", 64);
  writer.AddInt("llama.embedding_length", kSize);
  writer.AddInt("llama.feed_forward_length", kSize);
  writer.AddInt("llama.attention.head_count", 2);
  writer.AddInt("llama.attention.head_count_kv", 1);
  writer.AddFloat("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  writer.AddFloat("llama.rope.freq_base", 10000.0f);
  writer.AddString("tokenizer.ggml.model", "gpt2");
  writer.AddString("tokenizer.ggml.pre", pretokenizer);
  writer.AddStrings("tokenizer.ggml.tokens", {"a", "b", "ab", "<|im_end|>"});
  writer.AddInts("tokenizer.ggml.token_type", {1, 1, 1, 3});
  writer.AddStrings("tokenizer.ggml.merges", {"a b"});
  writer.AddInt("tokenizer.ggml.eos_token_id", 3);
  writer.AddString("tokenizer.chat_template", chat_template);
  const auto tensor = [&](const std::string& name, const std::vector<int64_t>& shape) {
    int64_t count = 1;
    for (const int64_t size : shape) count *= size;
    std::string data;
    for (int64_t i = 0; i < count; ++i) data += std::string("\0\0\0", 3) + (i % 3 == 0 ? '\xBE' : '\x3E');
    writer.AddTensor(name, TensorType::kF32, shape, data);
  };
  tensor("token_embd.weight", {kSize, 4});
  tensor("output_norm.weight", {kSize});
  for (int32_t i = 0; i < layers; ++i) {
    const std::string layer = absl::StrCat("blk.", i, ".");
    for (const char* norm : {"attn_norm.weight", "ffn_norm.weight"}) tensor(layer + norm, {kSize});
    for (const char* matrix :
         {"attn_q.weight", "attn_output.weight", "ffn_gate.weight", "ffn_up.weight", "ffn_down.weight"}) {
      tensor(layer + matrix, {kSize, kSize});
    }
    for (const char* matrix : {"attn_k.weight", "attn_v.weight"}) tensor(layer + matrix, {kSize, kSize / 2});
  }
  return writer;
}

Corpus GgufCorpus() {
  Corpus corpus;
  corpus["least_model"] = Model(1, "smollm", "<|im_start|><|im_end|>").Finish();
  corpus["llama_bpe"] = Model(1, "llama-bpe", "<|start_header_id|><|eot_id|>").Finish();
  GgufWriter scaled = Model(1, "gpt-2", "no template that is known");
  scaled.AddString("llama.rope.scaling.type", "linear");
  scaled.AddFloat("llama.rope.scaling.factor", 4.0f);
  corpus["scaled_rope"] = scaled.Finish();
  GgufWriter bos = Model(1, "smollm", "");
  bos.AddInt("tokenizer.ggml.bos_token_id", 3);
  bos.AddBool("tokenizer.ggml.add_bos_token", true);
  bos.AddInt("general.alignment", 64);
  corpus["begin_of_text"] = bos.Finish();
  corpus["no_layers"] = Model(0, "smollm", "").Finish();
  corpus["unknown_pretokenizer"] = Model(0, "other", "").Finish();
  GgufWriter types;
  for (const int type : {0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 30}) {
    const TensorTypeInfo info = InfoOf(static_cast<TensorType>(type));
    types.AddTensor(absl::StrCat("type", type), static_cast<TensorType>(type), {info.block_elements},
                    std::string(info.block_bytes, 'x'));
  }
  corpus["tensor_types"] = types.Finish();
  GgufWriter twice;
  twice.AddInt("twice", 1);
  twice.AddInt("twice", 2);
  corpus["a_key_twice"] = twice.Finish();
  GgufWriter large;
  large.AddTensor("large", TensorType::kF32, {int64_t{1} << 40, int64_t{1} << 40}, "");
  corpus["large_tensor"] = large.Finish();
  corpus["nothing"] = GgufWriter().Finish();
  corpus["cut"] = corpus["nothing"].substr(0, 9);
  return corpus;
}

v1::GenerationSpec FullSpec() {
  v1::GenerationSpec spec;
  v1::ChatMessage* message = spec.mutable_prompt()->mutable_chat()->add_messages();
  message->set_role("user");
  message->set_content("a text");
  v1::SamplingParams* sampling = spec.mutable_sampling();
  sampling->set_max_tokens(20);
  sampling->set_temperature(0.5f);
  sampling->set_top_k(7);
  sampling->set_top_p(0.9f);
  sampling->set_min_p(0.1f);
  sampling->set_repetition_penalty(1.1f);
  sampling->set_seed(3);
  sampling->add_stop("end");
  sampling->add_stop_token_ids(4);
  (*sampling->mutable_logit_bias())[5] = 1.5f;
  sampling->set_logprobs(2);
  spec.set_priority(-3);
  spec.set_tenant("red");
  spec.set_traffic_class("batch");
  (*spec.mutable_labels())["key"] = "value";
  spec.mutable_timeout()->set_seconds(9);
  spec.set_on_disconnect(v1::OnDisconnect::PAUSE);
  spec.set_hold_on_stop(true);
  return spec;
}

v1::ApplyRequest FullApply() {
  v1::ApplyRequest apply;
  v1::EnqueueRequest* enqueue = apply.add_operations()->mutable_enqueue();
  enqueue->set_generation_id("g");
  *enqueue->mutable_spec() = FullSpec();
  enqueue->set_hold(true);
  enqueue->mutable_lease()->set_nanos(5);
  v1::PreemptRequest* preempt = apply.add_operations()->mutable_preempt();
  preempt->mutable_selector()->set_tenant("red");
  preempt->mutable_selector()->add_states(v1::Generation::RUNNING);
  preempt->set_on_lease_expiry(v1::OnLeaseExpiry::ABORT);
  preempt->set_reason("why not");
  v1::ContinueRequest* resume = apply.add_operations()->mutable_resume();
  resume->add_generation_ids("g");
  resume->mutable_append()->mutable_token_ids()->add_token_ids(3);
  resume->set_append_id("turn");
  resume->set_max_tokens(40);
  apply.add_operations()->mutable_abort()->add_generation_ids("h");
  apply.add_operations()->mutable_set_priority()->add_generation_ids("i");
  apply.set_atomic(true);
  return apply;
}

// The number is the request's place in request_fuzzer.cc.
template <typename Request>
void Add(Corpus& corpus, int number, const std::string& name, const Request& request) {
  corpus[name] = std::string(1, static_cast<char>(number)) + request.SerializeAsString();
}

void AddVerbs(Corpus& corpus) {
  const v1::ApplyRequest apply = FullApply();
  Add(corpus, 5, "enqueue", apply.operations(0).enqueue());
  Add(corpus, 6, "preempt", apply.operations(1).preempt());
  Add(corpus, 7, "continue", apply.operations(2).resume());
  v1::ContinueRequest text = apply.operations(2).resume();
  text.mutable_append()->set_text("more <|im_end|> text");
  Add(corpus, 7, "continue_with_text", text);
  v1::ChatMessage* message = text.mutable_append()->mutable_chat()->add_messages();
  message->set_role("tool");
  message->set_content("42");
  Add(corpus, 7, "continue_with_chat", text);
  Add(corpus, 8, "abort", apply.operations(3).abort());
  Add(corpus, 9, "set_priority", apply.operations(4).set_priority());
  Add(corpus, 10, "apply", apply);
}

Corpus RequestCorpus() {
  Corpus corpus;
  v1::GenerateRequest generate;
  generate.set_generation_id("g");
  *generate.mutable_spec() = FullSpec();
  Add(corpus, 0, "generate", generate);
  generate.mutable_spec()->mutable_prompt()->set_text("a text");
  Add(corpus, 0, "generate_text", generate);
  generate.mutable_spec()->mutable_prompt()->mutable_token_ids()->add_token_ids(7);
  Add(corpus, 0, "generate_tokens", generate);
  // The vocabulary has 272 tokens.
  generate.mutable_spec()->mutable_prompt()->mutable_token_ids()->set_token_ids(0, 271);
  Add(corpus, 0, "generate_last_token", generate);
  generate.mutable_spec()->mutable_prompt()->mutable_token_ids()->set_token_ids(0, 272);
  Add(corpus, 0, "generate_no_token", generate);
  v1::AttachRequest attach;
  attach.set_generation_id("g");
  attach.set_offset(2);
  Add(corpus, 1, "attach", attach);
  v1::TokenizeRequest tokenize;
  tokenize.set_text("the text <|im_end|>");
  Add(corpus, 3, "tokenize", tokenize);
  v1::DetokenizeRequest detokenize;
  detokenize.add_token_ids(5);
  detokenize.add_token_ids(-5);
  Add(corpus, 4, "detokenize", detokenize);
  AddVerbs(corpus);
  v1::WatchRequest watch;
  watch.set_tenant("red");
  watch.mutable_progress_interval()->set_nanos(250'000'000);
  Add(corpus, 14, "watch", watch);
  v1::GetGenerationRequest get;
  get.set_generation_id("g");
  Add(corpus, 11, "get_generation", get);
  v1::ListGenerationsRequest list;
  list.add_states(v1::Generation::PAUSED);
  list.set_page_size(7);
  list.set_page_token("12");
  Add(corpus, 12, "list_generations", list);
  v1::OpenSessionRequest open;
  open.set_session_id("s");
  open.mutable_ttl()->set_seconds(9);
  Add(corpus, 15, "open_session", open);
  v1::KeepSessionAliveRequest keep;
  keep.set_session_id("s");
  keep.set_epoch(1234567);
  Add(corpus, 16, "keep_session_alive", keep);
  v1::CloseSessionRequest close;
  close.set_session_id("s");
  close.set_epoch(1234567);
  Add(corpus, 17, "close_session", close);
  return corpus;
}

// `choice`: see tokenizer_fuzzer.cc.
Corpus TokenizerCorpus() {
  const auto input = [](int choice, size_t stop_size, const std::string& rest) {
    return std::string({static_cast<char>(choice), static_cast<char>(stop_size)}) + rest;
  };
  return {{"plain", input(0, 0, "Hello, the world! It's 1234 o'clock.\r\n\tin  the end ")},
          {"characters", input(1, 0, "caf\xC3\xA9 \xE2\x82\xAC \xF0\x9F\x8E\xB5 \xE4\xB8\xAD\xE6\x96\x87 e\xCC\x81")},
          {"llama_words", input(2, 0, "THEY'LL 123456 aaaaaaa  \n\n  x")},
          {"specials", input(0x80, 0, "<|im_start|>user\n<tool><|im_end|><|im_end")},
          {"specials_as_text", input(0x11, 0, "<|start_header_id|><tool><|eot_id|>")},
          {"a_stop_string", input(4, 3, "ENDone EN END two")},
          {"three_stop_strings", input(0x0D, 2, "abbcca0abab c")},
          {"half_characters", input(0x44, 1,
                                    "\xE2"
                                    "a\xE2\x82"
                                    "END\xE2\x82\xAC\xC0\xAF\xED\xA0\x80\xF4\x90\x80\x80\xF0")},
          {"merged_tokens", input(0x40, 0,
                                  "a\xF8"
                                  "b\xF9"
                                  "c\xFA"
                                  "d\xFB"
                                  "e\xFC"
                                  "f\xFD"
                                  "g\xFE"
                                  "h\xFF")},
          {"a_template", input(0, 0, "<|im_start|>system\nYou are.<|im_end|>")},
          {"a_role", input(0x10, 0, "assistant")},
          {"zeros", input(6, 2, std::string(12, '\0'))}};
}

Corpus KvFileCorpus() {
  KvFileHead head = {.fingerprint = "model", .parked = {.id = *GenerationId::Parse("a")}, .block_bytes = 32};
  ParkedGeneration& parked = head.parked;
  parked.context = {TokenId{1}, TokenId{2}, TokenId{3}};
  parked.computed_token_count = 2;
  parked.usage = {.prompt_token_count = 2, .output_token_count = 1};
  parked.spec.sampling.max_tokens = 8;
  head.block_checksums = {7};
  Corpus corpus = {{"least", EncodeKvFileHead(head)}};
  parked.spec.sampling.stop = {"END"};
  parked.spec.sampling.stop_token_ids = {TokenId{5}};
  parked.spec.sampling.logit_bias = {{TokenId{6}, 1.0f}};
  parked.spec.labels = {{"key", "value"}};
  parked.context.push_back(TokenId{4});
  parked.appended = {{3, 4}};
  parked.usage.appended_token_count = 1;
  parked.append_id = "turn-2";
  parked.text_begins = {1};
  parked.session_id = "s";
  parked.lease = absl::Seconds(3);
  corpus["all"] = EncodeKvFileHead(head);
  corpus["no_blocks"] = EncodeKvFileHead({.fingerprint = "", .parked = parked});
  corpus["cut"] = corpus["all"].substr(0, 100);
  corpus["header"] = corpus["all"].substr(0, kKvFileHeaderBytes);
  corpus["nothing"] = "";
  std::string version = corpus["least"];
  version[8] = 2;
  corpus["another_version"] = version;
  std::string counts = corpus["least"];
  counts.replace(16, 16, std::string(16, '\xFF'));
  corpus["impossible_sizes"] = counts;
  return corpus;
}

void Write(const std::filesystem::path& folder, const Corpus& corpus) {
  std::filesystem::create_directories(folder);
  for (const auto& [name, bytes] : corpus) {
    CHECK_LT(bytes.size(), 4096u) << name;
    std::ofstream(folder / name, std::ios::binary) << bytes;
  }
}

}  // namespace
}  // namespace fermata

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: make_corpus FOLDER\n");
    return 1;
  }
  const std::filesystem::path folder = argv[1];
  fermata::Write(folder / "gguf", fermata::GgufCorpus());
  fermata::Write(folder / "kv_file", fermata::KvFileCorpus());
  fermata::Write(folder / "request", fermata::RequestCorpus());
  fermata::Write(folder / "tokenizer", fermata::TokenizerCorpus());
}
