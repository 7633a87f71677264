// SPDX-License-Identifier: Apache-2.0
// Corpora in an object store, against a local S3 server: `moto_server` of the Python package moto,
// or the program that POLYSKETCH_S3_SERVER names (called with -H 127.0.0.1 -p PORT).
// scripts/check_object_store brings one.
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <thread>

#include "data/corpus_files.hpp"
#include "data/file_store.hpp"

namespace polysketch {
namespace {

using test::corpus_config;
using test::expect_error;
using test::TemporaryFolder;

sockaddr_in loopback(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

int free_port() {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = loopback(0);
  socklen_t size = sizeof address;
  bind(fd, reinterpret_cast<sockaddr*>(&address), size);
  getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size);
  close(fd);
  return ntohs(address.sin_port);
}

bool answers(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  const sockaddr_in address = loopback(port);
  const bool connected =
      connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
  close(fd);
  return connected;
}

class ObjectStore : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    const char* program = std::getenv("POLYSKETCH_S3_SERVER");
    const std::string command = program != nullptr ? program : "moto_server";
    port_ = free_port();
    server_ = fork();
    if (server_ == 0) {
      setpgid(0, 0);  // the program may be a wrapper around the server
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      const int null = open("/dev/null", O_WRONLY);
      dup2(null, STDOUT_FILENO);
      dup2(null, STDERR_FILENO);
      execlp(command.c_str(), command.c_str(), "-H", "127.0.0.1", "-p",
             std::to_string(port_).c_str(), nullptr);
      _exit(127);
    }
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (std::chrono::steady_clock::now() < end && !(ready_ = answers(port_))) {
      if (waitpid(server_, nullptr, WNOHANG) == server_) {
        server_ = -1;
        break;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
    for (const auto& [name, value] : {std::pair{"AWS_ACCESS_KEY_ID", "test"},
                                      {"AWS_SECRET_ACCESS_KEY", "test"},
                                      {"AWS_EC2_METADATA_DISABLED", "true"}}) {
      setenv(name, value, 1);
    }
  }

  static void TearDownTestSuite() {
    close_object_stores();
    if (server_ <= 0) return;
    kill(-server_, SIGKILL);
    waitpid(server_, nullptr, 0);
  }

  void SetUp() override {
    if (!ready_)
      GTEST_SKIP() << "no local S3 server: install the Python package moto[server], or run "
                      "scripts/check_object_store";
  }

  static std::string uri(const std::string& path) {
    return "s3://" + path + "?scheme=http&endpoint_override=127.0.0.1:" + std::to_string(port_) +
           "&region=us-east-1";
  }

  /// A plain PUT: the server does not check signatures.
  static void put(const std::string& path, const std::string& content) {
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    const sockaddr_in address = loopback(port_);
    ASSERT_EQ(connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    const std::string request =
        "PUT /" + path +
        " HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: AWS4-HMAC-SHA256 "
        "Credential=test/20260101/us-east-1/s3/aws4_request, "
        "SignedHeaders=host, Signature=0\r\nConnection: close\r\nContent-Length: " +
        std::to_string(content.size()) + "\r\n\r\n" + content;
    for (size_t sent = 0; sent < request.size();) {
      const ssize_t n = send(fd, request.data() + sent, request.size() - sent, MSG_NOSIGNAL);
      ASSERT_GT(n, 0);
      sent += static_cast<size_t>(n);
    }
    std::string answer(4096, '\0');
    const ssize_t n = recv(fd, answer.data(), answer.size(), 0);
    close(fd);
    ASSERT_GT(n, 0);
    ASSERT_EQ(answer.substr(8, 5), " 200 ") << answer.substr(0, static_cast<size_t>(n));
  }

  static void upload(const std::string& bucket, const std::string& name,
                     const std::string& content) {
    put(bucket, "");
    put(bucket + "/" + name, content);
  }

  static inline int port_ = 0;
  static inline pid_t server_ = -1;
  static inline bool ready_ = false;
};

TEST_F(ObjectStore, WhatIsMissingIsNamed) {
  expect_error(ExitCode::missing_input, {"s3://nothing-here", "data.root"},
               [] { FileStore::open(uri("nothing-here/at/all")); });
  upload("empty", "other/file.txt", "x");
  expect_error(ExitCode::missing_input, {"train/*.txt"}, [] {
    (void)Corpus::open(corpus_config("text", uri("empty/other"))).files(Split::train);
  });
}

TEST_F(ObjectStore, EveryFormatReadsAsFromADisk) {
  TemporaryFolder folder;
  const std::string lines = "{\"text\": \"one\"}\n{\"text\": \"two\\nlines\"}\n";
  const std::string records = test::tfrecord(test::example({{"text", "three"}})) +
                              test::tfrecord(test::example({{"text", "four"}}));
  test::write_parquet(folder / "train-0.parquet", "text", {{"five"}, {"six"}});
  upload("formats", "json/en/c4-train.00000-of-00001.json.gz", test::gzip(lines));
  upload("formats", "records/3.1.0/c4-train.tfrecord-00000-of-00001", records);
  upload("formats", "rows/train-0.parquet", test::read_text(folder / "train-0.parquet"));
  upload("formats", "texts/train/b.txt", "eight");
  upload("formats", "texts/train/a.txt", "seven");
  upload("formats", "texts/train/deep/c.TXT", "nine");
  upload("formats", "texts/train/.hidden.txt", "not matched");
  upload("formats", "texts/train/.folder/d.txt", "not matched");
  upload("formats", "texts/train/notes.md", "not matched");
  EXPECT_EQ(test::texts_of(corpus_config("c4", uri("formats/json")), Split::train),
            (std::vector<std::string>{"one", "two\nlines"}));
  EXPECT_EQ(test::texts_of(corpus_config("c4", uri("formats/json/en")), Split::train),
            (std::vector<std::string>{"one", "two\nlines"}));
  EXPECT_EQ(test::texts_of(corpus_config("c4", uri("formats/records/3.1.0")), Split::train),
            (std::vector<std::string>{"three", "four"}));
  EXPECT_EQ(test::texts_of(corpus_config("c4", uri("formats/rows")), Split::train),
            (std::vector<std::string>{"five", "six"}));
  EXPECT_EQ(test::texts_of(corpus_config("text", uri("formats/texts")), Split::train),
            (std::vector<std::string>{"seven", "eight", "nine"}));
  EXPECT_EQ(Corpus::open(corpus_config("text", uri("formats/texts"))).left_out(Split::train),
            std::vector<std::string>{"1 file that no pattern takes: train/notes.md"});
  expect_error(
      ExitCode::missing_input, {"no train files", "set data.root to s3://", "/formats/texts"},
      [] { (void)Corpus::open(corpus_config("text", uri("formats"))).files(Split::train); });
}

TEST_F(ObjectStore, FilesAreIdentifiedByTheStoresVersion) {
  upload("versions", "train/a.txt", "first");
  const Corpus corpus = Corpus::open(corpus_config("text", uri("versions")));
  const auto file = corpus.files(Split::train).front();
  EXPECT_EQ(file.name, "train/a.txt");
  EXPECT_EQ(file.path, "s3://versions/train/a.txt");
  EXPECT_EQ(file.bytes, 5U);
  const std::string before = corpus.content_hash(file);
  EXPECT_EQ(corpus.content_hash(file), before);
  upload("versions", "train/a.txt", "other");
  EXPECT_NE(corpus.content_hash(file), before);
  expect_error(ExitCode::bad_data, {"not a name inside"}, [&] {
    (void)corpus.read({"../versions/train/a.txt", "", 0});
  });
}

TEST_F(ObjectStore, RealBooksAreTheSameFromTheStore) {
  const auto data = test::shared_folder("data");
  if (!data) GTEST_SKIP() << "no folder ../shared/data with real books";
  for (const auto& file : Corpus::open(corpus_config("pg19", *data / "pg19")).files(Split::test))
    upload("books", file.name, test::read_text(file.path));
  EXPECT_EQ(test::texts_of(corpus_config("pg19", uri("books")), Split::test),
            test::texts_of(corpus_config("pg19", *data / "pg19"), Split::test));
}

}  // namespace
}  // namespace polysketch
